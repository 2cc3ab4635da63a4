# SPDX-License-Identifier: MIT
"""Batch normalization of a whole batch in extended precision, and how far a right answer may be from it.

The bounds are of first order in the unit roundoffs: u = 2^-53 of the statistics, v of the parameters' type, which is the
data's or wider, for the element passes and for what belongs to channels. y and dx of f2 are rounded once more, with 2^-11
or, near 0, half of the smallest number. With M values per channel, R = max|x - mean|:

  mean    M additions and a few more operations on numbers up to max|x|:         e_mean = (M+8) * u * max|x|
  var     squares of differences up to 2R, M of them, and the error of the mean: e_var = (M+8) * u * 4R^2 + 2*R*e_mean
  invstd  relative, d/dvar of (var+eps)^(-1/2), and 3 roundings:                 r_inv = e_var / (2*(var+eps)) + 3u
  xhat                                                               e_xhat = e_mean*invstd + max|xhat| * r_inv
"""
import numpy as np

Real = np.longdouble
U = Real(2) ** -53
UNIT = {np.dtype("f4"): Real(2) ** -24, np.dtype("f8"): U}
HALF = np.dtype("f2")
SLACK = 2  # for the terms of higher order


def parameter_type(dtype):
    return np.dtype("f4") if dtype == HALF else dtype


def last_rounding(dtype, value):
    return np.abs(value) * Real(2) ** -11 + Real(2) ** -25 if dtype == HALF else 0


class Layer:
    """Parameters and settings: the arguments of `syncbn normalize`."""

    def __init__(self, gamma, beta, running_mean, running_var, eps, momentum, unbiased):
        self.gamma, self.beta = gamma.astype(Real), beta.astype(Real)
        self.running_mean, self.running_var = running_mean.astype(Real), running_var.astype(Real)
        self.eps, self.momentum, self.unbiased = Real(eps), momentum, unbiased


class Expected:
    """Values by the names of the output files, and the largest error of each."""

    def __init__(self):
        self.value, self.error = {}, {}

    def put(self, name, value, error):
        self.value[name] = value
        self.error[name] = SLACK * error


def with_channels_last(x, channels_last):
    """(N, C, *spatial) or (N, *spatial, C) as (M, C)."""
    x = x if channels_last else np.moveaxis(x, 1, -1)
    return x.reshape(-1, x.shape[-1]).astype(Real)


def as_input(rows, shape, channels_last):
    if channels_last:
        return rows.reshape(shape)
    return np.moveaxis(rows.reshape((shape[0], *shape[2:], shape[1])), -1, 1)


def behind_relu(dy, y):
    """What a ReLU lets through of dy. y is the tested program's: whether a y within its bound of 0 is above 0 is not ours
    to say, but the gradients must go with it."""
    return np.where(y > 0, dy, dy.dtype.type(0))


def evaluate(layer, x, dy, channels_last, statistics, residual=None, relu=False):
    """`statistics`: "batch" (of x) or "running" (constants). x, dy (with a ReLU: what is behind it) and the residual are
    whole arrays, as in their files."""
    result = Expected()
    shape, v, dtype = x.shape, UNIT[parameter_type(x.dtype)], x.dtype
    x = with_channels_last(x, channels_last)
    count = x.shape[0]
    mean, var, e_mean, e_var = _statistics(layer, x, statistics)
    result.put("mean", mean, e_mean)
    result.put("var", var, e_var)

    invstd = _invstd(var + layer.eps)
    r_inv = np.divide(e_var, 2 * (var + layer.eps), out=np.zeros_like(var), where=var + layer.eps > 0) + 3 * U
    xhat = (x - mean) * invstd
    e_xhat = e_mean * invstd + _max0(np.abs(xhat)) * r_inv
    y = layer.gamma * xhat + layer.beta
    # In the parameters' arithmetic: x-mean, scale, product, shift, sum.
    e_y = v * (5 * np.abs(layer.gamma * xhat) + 3 * np.abs(layer.beta)) + np.abs(layer.gamma) * e_xhat
    if residual is not None:  # one more sum, of which the terms above have their roundings
        residual = with_channels_last(residual, channels_last)
        y, e_y = y + residual, e_y + v * (np.abs(y) + np.abs(residual))
    if relu:  # no farther from 0 or from one another than before
        y = np.maximum(y, 0)
    e_y = e_y + last_rounding(dtype, y)
    result.put("y", as_input(y, shape, channels_last), as_input(e_y + 0 * y, shape, channels_last))
    _running(result, layer, mean, var, e_mean, e_var, count, v, statistics)
    if dy is not None:
        dy = with_channels_last(dy, channels_last)
        _backward(result, layer, (shape, channels_last), dtype, dy, xhat, invstd, e_xhat, r_inv, statistics)
    return result


def _statistics(layer, x, statistics):
    zero = np.zeros_like(layer.gamma)
    if statistics == "running":
        return layer.running_mean, layer.running_var, zero, zero
    count = x.shape[0]
    if count == 0:
        return zero, zero, zero, zero
    mean = x.mean(axis=0)
    mean = mean + (x - mean).mean(axis=0)
    spread = _max0(np.abs(x - mean))
    e_mean = (count + 8) * U * _max0(np.abs(x))
    e_var = (count + 8) * U * 4 * spread**2 + 2 * spread * e_mean
    return mean, ((x - mean) ** 2).mean(axis=0), e_mean, e_var


def _running(result, layer, mean, var, e_mean, e_var, count, v, statistics):
    def blend(old, new, e_new, weight):
        value = (1 - weight) * old + weight * new
        return value, v * np.abs(value) + 4 * U * (np.abs(old) + np.abs(new)) + weight * e_new

    updates = statistics == "batch" and count > 0
    weight = 0 if not updates else Real(1) if layer.momentum is None else Real(layer.momentum)
    result.put("running_mean", *blend(layer.running_mean, mean, e_mean, weight))
    if layer.unbiased and count < 2:  # no unbiased variance of one value
        result.put("running_var", *blend(layer.running_var, var, e_var, 0))
        return
    factor = Real(count) / (count - 1) if layer.unbiased and updates else Real(1)
    result.put("running_var", *blend(layer.running_var, var * factor, e_var * factor + 3 * U * var, weight))


def _backward(result, layer, form, dtype, dy, xhat, invstd, e_xhat, r_inv, statistics):
    """Sums of M products: (M+8)*u of the sum of their magnitudes, and what the error of xhat makes of them."""
    count, v = dy.shape[0], UNIT[parameter_type(dtype)]
    sum_dy, sum_dy_xhat = dy.sum(axis=0), (dy * xhat).sum(axis=0)
    all_dy, all_dy_xhat = np.abs(dy).sum(axis=0), np.abs(dy * xhat).sum(axis=0)
    e_sum_dy = (count + 8) * U * all_dy
    e_sum_dy_xhat = (count + 8) * U * all_dy_xhat + e_xhat * all_dy
    # v times the magnitudes instead of the sum: a frozen layer's sums are rounded once per rank.
    result.put("dbeta", sum_dy, v * all_dy + e_sum_dy)
    result.put("dgamma", sum_dy_xhat, v * all_dy_xhat + e_sum_dy_xhat)

    scale = layer.gamma * invstd
    if statistics == "running" or count == 0:
        terms, parts, error = dy, np.abs(dy), 0
    else:
        terms = dy - sum_dy / count - xhat * (sum_dy_xhat / count)
        parts = np.abs(dy) + np.abs(sum_dy / count) + np.abs(xhat * (sum_dy_xhat / count))
        error = e_sum_dy / count + np.abs(xhat) * e_sum_dy_xhat / count + e_xhat * np.abs(sum_dy_xhat / count)
    e_dx = np.abs(scale) * ((8 * v + r_inv) * parts + error) + last_rounding(dtype, scale * terms)
    result.put("dx", as_input(scale * terms, *form), as_input(e_dx, *form))


def _invstd(shifted):
    return np.divide(1, np.sqrt(shifted), out=np.zeros_like(shifted), where=shifted > 0)


def _max0(values):
    return values.max(axis=0, initial=0)
