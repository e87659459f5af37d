"""Every optimizer once more: on one number, with `math` only, written from its paper. What the rules are held to."""

import math


def decayed(x, g, lr, weight_decay, decoupled):
    """Return x and g after weight decay."""
    return (x * (1 - lr * weight_decay), g) if decoupled else (x, g + weight_decay * x)


def sgd(x, grads, lr, momentum=0, dampening=0, weight_decay=0, nesterov=False, maximize=False):
    b = None
    for g in grads:
        g = (-g if maximize else g) + weight_decay * x
        if momentum:
            b = g if b is None else momentum * b + (1 - dampening) * g
            g = g + momentum * b if nesterov else b
        x -= lr * g
    return x


def asgd(x, grads, lr, lambd=1e-4, alpha=0.75, t0=1e6, weight_decay=0):
    eta = lr
    for t, g in enumerate(grads, start=1):
        x -= eta * (g + weight_decay * x + lambd * x)
        eta = lr / math.pow(1 + lambd * lr * t, alpha)
    return x


def adagrad(x, grads, lr, lr_decay=0, weight_decay=0, initial_accumulator_value=0, eps=1e-10):
    total = initial_accumulator_value
    for t, g in enumerate(grads):
        g += weight_decay * x
        total += g * g
        x -= lr / (1 + t * lr_decay) * g / (math.sqrt(total) + eps)
    return x


def adadelta(x, grads, lr, rho=0.9, eps=1e-6, weight_decay=0):
    squares = deltas = 0.0
    for g in grads:
        g += weight_decay * x
        squares += (1 - rho) * (g * g - squares)
        delta = math.sqrt((deltas + eps) / (squares + eps)) * g
        deltas += (1 - rho) * (delta * delta - deltas)
        x -= lr * delta
    return x


def rmsprop(x, grads, lr, alpha=0.99, eps=1e-8, weight_decay=0, momentum=0, centered=False):
    v = mean = b = 0.0
    for g in grads:
        g += weight_decay * x
        v = alpha * v + (1 - alpha) * g * g
        mean = alpha * mean + (1 - alpha) * g
        step = g / (math.sqrt(v - mean * mean if centered else v) + eps)
        b = momentum * b + step
        x -= lr * (b if momentum else step)
    return x


def rprop(x, grads, lr, etas=(0.5, 1.2), step_sizes=(1e-6, 50)):
    before, size = 0.0, lr
    for g in grads:
        if g * before > 0:
            size = min(size * etas[1], step_sizes[1])
        elif g * before < 0:
            size, g = max(size * etas[0], step_sizes[0]), 0.0
        else:
            size = min(max(size, step_sizes[0]), step_sizes[1])
        if g:
            x -= math.copysign(size, g)
        before = g
    return x


def adam(x, grads, lr, betas=(0.9, 0.999), eps=1e-8, weight_decay=0, amsgrad=False, maximize=False,
         decoupled_weight_decay=False):
    m = v = largest = 0.0
    for t, g in enumerate(grads, start=1):
        x, g = decayed(x, -g if maximize else g, lr, weight_decay, decoupled_weight_decay)
        m += (1 - betas[0]) * (g - m)
        v += (1 - betas[1]) * (g * g - v)
        largest = max(largest, v)
        root = math.sqrt((largest if amsgrad else v) / (1 - math.pow(betas[1], t)))
        x -= lr * (m / (1 - math.pow(betas[0], t))) / (root + eps)
    return x


def adamw(x, grads, lr, weight_decay=0.01, **options):
    return adam(x, grads, lr, weight_decay=weight_decay, decoupled_weight_decay=True, **options)


def adamax(x, grads, lr, betas=(0.9, 0.999), eps=1e-8, weight_decay=0):
    m = u = 0.0
    for t, g in enumerate(grads, start=1):
        g += weight_decay * x
        m += (1 - betas[0]) * (g - m)
        u = max(betas[1] * u, math.fabs(g) + eps)
        x -= lr * m / (u * (1 - math.pow(betas[0], t)))
    return x


def nadam(x, grads, lr, betas=(0.9, 0.999), eps=1e-8, weight_decay=0, momentum_decay=4e-3,
          decoupled_weight_decay=False):
    m = v = 0.0
    mus = [betas[0] * (1 - 0.5 * math.pow(0.96, t * momentum_decay)) for t in range(1, len(grads) + 2)]
    for t, g in enumerate(grads, start=1):
        x, g = decayed(x, g, lr, weight_decay, decoupled_weight_decay)
        m += (1 - betas[0]) * (g - m)
        v += (1 - betas[1]) * (g * g - v)
        m_hat = mus[t] * m / (1 - math.prod(mus[:t + 1])) + (1 - mus[t - 1]) * g / (1 - math.prod(mus[:t]))
        x -= lr * m_hat / (math.sqrt(v / (1 - math.pow(betas[1], t))) + eps)
    return x


def rectifier(t, beta2):
    """Return Liu et al.'s rho_t and r_t."""
    most = 2 / (1 - beta2) - 1
    rho = most - 2 * t * math.pow(beta2, t) / (1 - math.pow(beta2, t))
    return rho, math.sqrt((rho - 4) / (most - 4) * (rho - 2) / (most - 2) * most / rho) if rho > 4 else None


def radam(x, grads, lr, betas=(0.9, 0.999), eps=1e-8, weight_decay=0, decoupled_weight_decay=False):
    m = v = 0.0
    for t, g in enumerate(grads, start=1):
        x, g = decayed(x, g, lr, weight_decay, decoupled_weight_decay)
        m += (1 - betas[0]) * (g - m)
        v += (1 - betas[1]) * (g * g - v)
        rho, r = rectifier(t, betas[1])
        adaptive = r * math.sqrt(1 - math.pow(betas[1], t)) / (math.sqrt(v) + eps) if rho > 5 else 1
        x -= lr * adaptive * m / (1 - math.pow(betas[0], t))
    return x


def adabelief(x, grads, lr, betas=(0.9, 0.999), eps=1e-16, weight_decay=0, amsgrad=False, weight_decouple=True,
              rectify=False):
    m = s = largest = 0.0
    for t, g in enumerate(grads, start=1):
        x, g = decayed(x, g, lr, weight_decay, weight_decouple)
        m += (1 - betas[0]) * (g - m)
        s = betas[1] * s + (1 - betas[1]) * (g - m) ** 2 + eps
        largest = max(largest, s)
        used, c = largest if amsgrad else s, math.sqrt(1 - math.pow(betas[1], t))
        rho, r = rectifier(t, betas[1])
        if rectify:
            adaptive = r * c / (math.sqrt(used) + eps) if rho >= 5 else 1
        else:
            adaptive = 1 / (math.sqrt(used) / c + eps)
        x -= lr * adaptive * m / (1 - math.pow(betas[0], t))
    return x


def yogi(x, grads, lr, betas=(0.9, 0.999), eps=1e-3):
    m = v = 1e-6
    for t, g in enumerate(grads, start=1):
        m += (1 - betas[0]) * (g - m)
        v += (1 - betas[1]) * g * g * ((v < g * g) - (v > g * g))
        x -= lr * m / (1 - math.pow(betas[0], t)) / (math.sqrt(v / (1 - math.pow(betas[1], t))) + eps)
    return x


def lion(x, grads, lr, betas=(0.9, 0.99), weight_decay=0.0):
    m = 0.0
    for g in grads:
        direction = betas[0] * m + (1 - betas[0]) * g
        x -= lr * ((direction > 0) - (direction < 0) + weight_decay * x)
        m = betas[1] * m + (1 - betas[1]) * g
    return x


def signum(x, grads, lr, momentum=0.9):
    return lion(x, grads, lr, betas=(momentum, momentum))


def adan(x, grads, lr, betas=(0.98, 0.92, 0.99), eps=1e-8, weight_decay=0.0, no_prox=False):
    m = d = n = 0.0
    for t, g in enumerate(grads, start=1):
        difference = g - grads[t - 2] if t > 1 else 0.0
        m += (1 - betas[0]) * (g - m)
        d += (1 - betas[1]) * (difference - d)
        n += (1 - betas[2]) * ((g + betas[1] * difference) ** 2 - n)
        direction = m / (1 - math.pow(betas[0], t)) + betas[1] * d / (1 - math.pow(betas[1], t))
        step = lr * direction / (math.sqrt(n / (1 - math.pow(betas[2], t))) + eps)
        x = x * (1 - lr * weight_decay) - step if no_prox else (x - step) / (1 + lr * weight_decay)
    return x


def ademamix(x, grads, lr, betas=(0.9, 0.999, 0.9999), alpha=2.0, beta3_warmup=None, alpha_warmup=None, eps=1e-8,
             weight_decay=0):
    def half_life(beta):
        return math.log(0.5) / math.log(beta)
    m = slow = v = 0.0
    for t, g in enumerate(grads, start=1):
        weight, beta3 = alpha, betas[2]
        if alpha_warmup and t < alpha_warmup:
            weight = alpha * t / alpha_warmup
        if beta3_warmup and t < beta3_warmup:
            life = half_life(betas[0]) + t / beta3_warmup * (half_life(betas[2]) - half_life(betas[0]))
            beta3 = math.pow(0.5, 1 / life)
        m += (1 - betas[0]) * (g - m)
        v += (1 - betas[1]) * (g * g - v)
        slow += (1 - beta3) * (g - slow)
        root = math.sqrt(v) / math.sqrt(1 - math.pow(betas[1], t)) + eps
        x -= lr * ((m / (1 - math.pow(betas[0], t)) + weight * slow) / root + weight_decay * x)
    return x


def madgrad(x, grads, lr, momentum=0.9, weight_decay=0, eps=1e-6):
    start, s, v = x, 0.0, 0.0
    for t, g in enumerate(grads, start=1):
        g += weight_decay * x
        rate = (lr + eps) * math.sqrt(t)
        s, v = s + rate * g, v + rate * g * g
        x += (1 - momentum) * (start - s / (math.cbrt(v) + eps) - x)
    return x


def adopt(x, grads, lr, betas=(0.9, 0.9999), eps=1e-6):
    m, v = 0.0, grads[0] ** 2
    for k, g in enumerate(grads[1:], start=1):
        u = g / max(math.sqrt(v), eps)
        m += (1 - betas[0]) * (math.copysign(min(math.fabs(u), math.pow(k, 0.25)), u) - m)
        x -= lr * m
        v += (1 - betas[1]) * (g * g - v)
    return x


def adabound(x, grads, lr, betas=(0.9, 0.999), final_lr=0.1, gamma=1e-3, eps=1e-8, weight_decay=0, amsbound=False):
    m = v = largest = 0.0
    for t, g in enumerate(grads, start=1):
        g += weight_decay * x
        m += (1 - betas[0]) * (g - m)
        v += (1 - betas[1]) * (g * g - v)
        largest = max(largest, v)
        rate = lr * math.sqrt(1 - math.pow(betas[1], t)) / (1 - math.pow(betas[0], t))
        rate /= math.sqrt(largest if amsbound else v) + eps
        x -= m * min(max(rate, final_lr * gamma * t / (gamma * t + 1)), final_lr * (gamma * t + 1) / (gamma * t))
    return x


def qhm(x, grads, lr, momentum=0.999, nu=0.7, weight_decay=0.0, weight_decay_type="grad"):
    b = 0.0
    for g in grads:
        x, g = decayed(x, g, lr, weight_decay, weight_decay_type == "direct")
        b += (1 - momentum) * (g - b)
        x -= lr * (g + nu * (b - g))
    return x


def qhadam(x, grads, lr, betas=(0.9, 0.999), nus=(1.0, 1.0), weight_decay=0.0, decouple_weight_decay=False, eps=1e-8):
    m = v = 0.0
    for t, g in enumerate(grads, start=1):
        x, g = decayed(x, g, lr, weight_decay, decouple_weight_decay)
        m += (1 - betas[0]) * (g - m)
        v += (1 - betas[1]) * (g * g - v)
        m_hat, v_hat = m / (1 - math.pow(betas[0], t)), v / (1 - math.pow(betas[1], t))
        x -= lr * (g + nus[0] * (m_hat - g)) / (math.sqrt(g * g + nus[1] * (v_hat - g * g)) + eps)
    return x


def aggmo(x, grads, lr, betas=(0, 0.9, 0.99), weight_decay=0):
    velocities = [0.0] * len(betas)
    for g in grads:
        velocities = [beta * b + g + weight_decay * x for beta, b in zip(betas, velocities)]
        x -= lr * sum(velocities) / len(betas)
    return x


def sign(x):
    return (x > 0) - (x < 0)


def lars(x, grads, lr, momentum=0.9, weight_decay=0.0, dampening=0.0, trust_coefficient=0.001, eps=1e-8,
         nesterov=False, exclude_1d=False):
    b = None
    for g in grads:
        d = g + weight_decay * x
        if x and g and not exclude_1d:
            d *= trust_coefficient * abs(x) / (abs(g) + weight_decay * abs(x) + eps)
        b = d if b is None else momentum * b + (1 - dampening) * d
        x -= lr * (d + momentum * b if nesterov else b if momentum else d)
    return x


def lamb(x, grads, lr, betas=(0.9, 0.999), eps=1e-6, weight_decay=0.0, bias_correction=True, max_grad_norm=math.inf,
         trust_clip=False):
    m = v = 0.0
    for t, g in enumerate(grads, start=1):
        g /= max(1, abs(g) / max_grad_norm)
        m += (1 - betas[0]) * (g - m)
        v += (1 - betas[1]) * (g * g - v)
        c1, c2 = (1 - math.pow(beta, t) if bias_correction else 1 for beta in betas)
        u = m / c1 / (math.sqrt(v / c2) + eps) + weight_decay * x
        ratio = abs(x) / abs(u) if x and u else 1
        x -= lr * (min(ratio, 1) if trust_clip else ratio) * u
    return x


def novograd(x, grads, lr, betas=(0.9, 0.25), eps=1e-8, weight_decay=0.0):
    m = v = 0.0
    for t, g in enumerate(grads):
        v = betas[1] * v + (1 - betas[1]) * g * g if t else g * g
        m = betas[0] * m + g / (math.sqrt(v) + eps) + weight_decay * x
        x -= lr * m
    return x


LOSS = 2.5                          # what every step is told


def polyaksgd(x, grads, lr, f_star=0.0, eps=0.0):
    for g in grads:
        if g * g + eps > 2.0 ** -52:
            x -= min(lr, (LOSS - f_star) / (g * g + eps)) * g
    return x


def dog(x, grads, lr, reps_rel=1e-6, eps=1e-8, weight_decay=0.0):
    start, distance, total = x, reps_rel * (1 + abs(x)), 0.0
    for g in grads:
        g += weight_decay * x
        distance, total = max(distance, abs(x - start)), total + g * g
        x -= lr * distance / math.sqrt(total + eps) * g
    return x


def dadaptsgd(x, grads, lr, momentum=0.0, weight_decay=0, d0=1e-6, growth_rate=math.inf):
    start, d, s, inner, first = x, d0, 0.0, 0.0, abs(grads[0])
    for g in grads:
        g += weight_decay * x
        inner += d * lr / first * g * s
        s += d * lr / first * g
        d = max(d, min(2 * inner / abs(s), d * growth_rate))
        x = momentum * x + (1 - momentum) * (start - s)
    return x


def rate_correction(t, betas, use):
    return math.sqrt(1 - math.pow(betas[1], t)) / (1 - math.pow(betas[0], t)) if use else 1


def dadaptadam(x, grads, lr, betas=(0.9, 0.999), eps=1e-8, weight_decay=0, decouple=False, use_bias_correction=False,
               d0=1e-6, growth_rate=math.inf):
    d, m, v, s, inner, b = d0, 0.0, 0.0, 0.0, 0.0, math.sqrt(betas[1])
    for t, g in enumerate(grads, start=1):
        rate = d * lr * rate_correction(t, betas, use_bias_correction)
        x, g = decayed(x, g, rate, weight_decay, decouple)
        inner = b * inner + (1 - b) * rate * g * s / (math.sqrt(v) + eps)
        m += (1 - betas[0]) * (rate * g - m)
        v += (1 - betas[1]) * (g * g - v)
        s += (1 - b) * (rate * g - s)
        d = max(d, min(inner / ((1 - b) * abs(s)), d * growth_rate))
        x -= m / (math.sqrt(v) + eps)
    return x


def prodigy(x, grads, lr, betas=(0.9, 0.999), beta3=None, eps=1e-8, weight_decay=0, decouple=True,
            use_bias_correction=False, safeguard_warmup=False, d0=1e-6, d_coef=1.0, growth_rate=math.inf):
    start, d, d_max, m, v, s, inner = x, d0, d0, 0.0, 0.0, 0.0, 0.0
    b = math.sqrt(betas[1]) if beta3 is None else beta3
    for t, g in enumerate(grads, start=1):
        rate, old = d * lr * rate_correction(t, betas, use_bias_correction), x
        x, g = decayed(x, g, rate, weight_decay, decouple)
        inner = b * inner + d / d0 * rate * g * (start - old)
        m += (1 - betas[0]) * (d * g - m)
        v += (1 - betas[1]) * (d * d * g * g - v)
        s = b * s + d / d0 * (d if safeguard_warmup else rate) * g
        d_hat = d_coef * inner / abs(s)
        d = max(d, d_hat) if d == d0 else d
        d_max = max(d_max, d_hat)
        d = min(d_max, d * growth_rate)
        x -= rate * m / (math.sqrt(v) + d * eps)
    return x


BATCH = 5                           # what SophiaG is told


def sophiag(x, grads, lr, betas=(0.965, 0.99), rho=0.04, weight_decay=0.1):
    m = h = 0.0
    for g in grads:
        h += (1 - betas[1]) * (g * g - h)
        x *= 1 - lr * weight_decay
        m += (1 - betas[0]) * (g - m)
        x -= lr * sign(m) * min(1, abs(m) / (rho * BATCH * h + 1e-15))
    return x


CURVATURE = 3.0                     # of what SophiaH is told


def sophiah(x, grads, lr, betas=(0.965, 0.99), eps=1e-8, gamma=0.01, clip_threshold=1.0, weight_decay=0.0):
    m = h = 0.0
    for t, g in enumerate(grads, start=1):
        h += (1 - betas[1]) * (CURVATURE - h)
        m += (1 - betas[0]) * (g - m)
        u = m / (1 - math.pow(betas[0], t)) / max(gamma * h, eps)
        x -= lr * (max(min(u, clip_threshold), -clip_threshold) + weight_decay * x)
    return x


def schedule_free(x, grads, lr, beta, warmup_steps, r, weight_lr_power, scaled):
    """Return y; scaled(t, g, y) is the direction of a step."""
    y = z = x
    total = largest = 0.0
    for t, g in enumerate(grads, start=1):
        g = scaled(t, g, y)
        rate = lr * min(1, t / warmup_steps) if warmup_steps else lr
        largest = max(largest, rate)
        weight = math.pow(t, r) * math.pow(largest, weight_lr_power)
        total += weight
        z -= rate * g
        x += weight / total * (z - x)
        y = beta * x + (1 - beta) * z
    return y


def schedulefreesgd(x, grads, lr, momentum=0.9, weight_decay=0, warmup_steps=0, r=0.0, weight_lr_power=2.0):
    return schedule_free(x, grads, lr, momentum, warmup_steps, r, weight_lr_power,
                         lambda t, g, y: g + weight_decay * y)


def schedulefreeadamw(x, grads, lr, betas=(0.9, 0.999), eps=1e-8, weight_decay=0, warmup_steps=0, r=0.0,
                      weight_lr_power=2.0):
    v = 0.0

    def scaled(t, g, y):
        nonlocal v
        v += (1 - betas[1]) * (g * g - v)
        return g / (math.sqrt(v / (1 - math.pow(betas[1], t))) + eps) + weight_decay * y
    return schedule_free(x, grads, lr, betas[0], warmup_steps, r, weight_lr_power, scaled)


def adafactor(x, grads, lr, beta2_decay=-0.8, eps=(None, 1e-3), d=1.0, weight_decay=0.0):
    v = 0.0
    for t, g in enumerate(grads, start=1):
        v += math.pow(t, beta2_decay) * (g * g - v)
        u = g / max(math.sqrt(v), math.ulp(1.0) if eps[0] is None else eps[0])
        alpha = max(eps[1], abs(x)) * min(lr, 1 / math.sqrt(t))
        x = x * (1 - lr * weight_decay) - alpha * u / max(1, abs(u) / d)
    return x


def muon(x, grads, lr, weight_decay=0.1, momentum=0.95, nesterov=True, ns_coefficients=(3.4445, -4.775, 2.0315),
         eps=1e-7, ns_steps=5, adjust_lr_fn=None):
    b = 0.0
    for g in grads:
        b += (1 - momentum) * (g - b)
        s = g + momentum * (b - g) if nesterov else b
        s /= max(abs(s), eps)
        for _ in range(ns_steps):
            s = sum(c * math.pow(s, k) for c, k in zip(ns_coefficients, (1, 3, 5)))
        x = x * (1 - lr * weight_decay) - lr * (0.2 if adjust_lr_fn == "match_rms_adamw" else 1) * s
    return x


def shampoo(x, grads, lr, momentum=0.0, weight_decay=0, eps=1e-4, update_freq=1, exponent=None):
    """On a vector of one number; one without axes has no factor."""
    h, b = eps, 0.0
    for k, g in enumerate(grads):
        g += weight_decay * x
        h += g * g
        if k % update_freq == 0:
            power = math.pow(h, -(exponent or 0.5))
        b = momentum * b + power * g
        x -= lr * b
    return x


def soap(x, grads, lr, betas=(0.95, 0.95), shampoo_beta=-1, eps=1e-8, weight_decay=0.01, precondition_frequency=10,
         max_precond_dim=10000, correct_bias=True, normalize_grads=False, precondition_1d=False):
    m = v = 0.0
    for t, g in enumerate(grads[1:], start=1):      # one number has but one basis, which the first gradient sets
        m += (1 - betas[0]) * (g - m)
        v += (1 - betas[1]) * (g * g - v)
        u = m / (math.sqrt(v) + eps)
        u = math.copysign(1, u) if normalize_grads else u
        rate = lr * math.sqrt(1 - math.pow(betas[1], t)) / (1 - math.pow(betas[0], t)) if correct_bias else lr
        x = (x - rate * u) * (1 - lr * weight_decay)
    return x
