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


def _cbrt(real, whole, tiny, up, down, steps, guess):
    """Return the cube root of a scalar of one precision: the numpy backend's, step by step."""
    @njit(inline="always")
    def cbrt(x):
        small = abs(x) < tiny
        a = real(abs(x) * up if small else abs(x))
        y = guess(real(a).view(whole))
        for _ in range(steps):
            t = y / a * y * y
            y = y * ((t + real(2)) / (real(2) * t + real(1)))
        y = y * down if small else y
        y = y if x > real(0) else -y
        return y if a > real(0) and a < real(numpy.inf) else x
    return cbrt


@njit(inline="always")
def _guess32(bits):
    return numpy.int32((numpy.int64(bits) * 1431655766 >> 32) + 709958130).view(numpy.float32)


@njit(inline="always")
def _guess64(bits):
    return numpy.int64((((bits >> 32) * 1431655766 >> 32) + 715094163) << 32).view(numpy.float64)


cbrt_float32 = _cbrt(numpy.float32, numpy.int32, numpy.finfo(numpy.float32).tiny, numpy.float32(2.0 ** 24),
                     numpy.float32(2.0 ** -8), 2, _guess32)
cbrt_float64 = _cbrt(numpy.float64, numpy.int64, numpy.finfo(numpy.float64).tiny, numpy.float64(2.0 ** 54),
                     numpy.float64(2.0 ** -18), 3, _guess64)


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
