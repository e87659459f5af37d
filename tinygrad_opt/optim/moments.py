"""What the relatives of Adam share: the two running means, and the steps that are made of them."""

from __future__ import annotations

from ..rule import sqrt


def moments(g, m, v, beta1, beta2):
    m = beta1 * m + (1 - beta1) * g
    v = beta2 * v + (1 - beta2) * g ** 2
    return m, v


def adam_step(p, m, v, t, lr, beta1, beta2, eps):
    m_hat = m / (1 - beta1 ** t)
    v_hat = v / (1 - beta2 ** t)
    p = p - lr * m_hat / (sqrt(v_hat) + eps)
    return p


def rectification(t, beta2):
    """How many squares the mean of t of them is worth, and what mends its root (Liu et al., 2020)."""
    rho_inf = 2 / (1 - beta2) - 1
    rho = rho_inf - 2 * t * beta2 ** t / (1 - beta2 ** t)
    r = sqrt((rho - 4) * (rho - 2) * rho_inf / ((rho_inf - 4) * (rho_inf - 2) * rho)) if rho > 4 else 0
    return rho, r
