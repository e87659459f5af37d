"""Loops that Numba compiles: imported when the first kernel is needed, never before."""

import math

import numpy
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

# The default error model checks every division for zero, which stops vectorisation.
loop = njit(cache=True, nogil=True, error_model="numpy")


@intrinsic
def address(typingctx, number):
    """Take a whole number as the address of memory."""
    def generate(context, builder, signature, arguments):
        return builder.inttoptr(arguments[0], cgutils.voidptr_t)
    return types.voidptr(number), generate


@loop
def add_bias(y, bias, rectify):
    """Add a bias to each row of y, in place; with `rectify` keep the larger of that and 0, and NaN."""
    zero = numpy.float32(0)                         # in single precision, so that nothing becomes double
    for i in range(y.shape[0]):
        for j in range(y.shape[1]):
            total = y[i, j] + bias[j]
            y[i, j] = zero if rectify and total <= zero else total


@loop
def rectified(g, y, out):
    """Write g where y is positive, and 0 elsewhere, into out."""
    zero = numpy.float32(0)
    for i in range(g.shape[0]):
        for j in range(g.shape[1]):
            out[i, j] = g[i, j] if y[i, j] > zero else zero


@loop
def cross_entropy(z, labels, share, loss, gradient):
    """Write the sum of -share * log softmax(z)[i, labels[i]] and its gradient; return whether each label fits."""
    summed = 0.0
    for i in range(z.shape[0]):
        label = labels[i]
        if not 0 <= label < z.shape[1]:
            return False
        top = z[i, 0]
        for j in range(1, z.shape[1]):
            if z[i, j] > top:
                top = z[i, j]
        total = 0.0
        for j in range(z.shape[1]):
            gradient[i, j] = math.exp(z[i, j] - top)
            total += gradient[i, j]
        own = gradient[i, label] / total
        for j in range(z.shape[1]):
            gradient[i, j] *= share / total
        gradient[i, label] = share * (own - 1)      # exactly 0 where the label is certain
        summed += math.log(total) - (z[i, label] - top)
    loss[()] = share * summed
    return True


@loop
def erf(x, y):
    """Write the error function of x into y."""
    for i in range(x.size):
        y[i] = math.erf(x[i])
