"""Loops that Numba compiles: imported when the first kernel is needed, never before."""

import math

import numpy
from numba import njit, types, vectorize
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
def cross_entropy(z, labels, share, loss, gradient):
    summed = 0.0
    for i in range(z.shape[0]):
        label = labels[i]
        if not 0 <= label < z.shape[1]:
            return False
        top = z[i, 0]
        for j in range(1, z.shape[1]):
            if z[i, j] > top:
                top = z[i, j]
        total = share - share
        for j in range(z.shape[1]):
            gradient[i, j] = math.exp(z[i, j] - top)
            total += gradient[i, j]
        for j in range(z.shape[1]):
            gradient[i, j] *= share / total
        gradient[i, label] -= share
        summed += math.log(total) - (z[i, label] - top)
    loss[()] = share * summed
    return True


@loop
def erf(x, y):
    for i in range(x.size):
        y[i] = math.erf(x[i])
