"""For learners: the grader, the known failures, and the dialects of other frameworks."""
