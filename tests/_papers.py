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


PAPERS = {
    "SGD": sgd, "ASGD": asgd, "Adagrad": adagrad, "Adadelta": adadelta, "RMSprop": rmsprop, "Rprop": rprop,
    "Adam": adam, "AdamW": adamw, "Adamax": adamax, "NAdam": nadam, "RAdam": radam, "AdaBelief": adabelief,
    "Yogi": yogi, "Lion": lion, "Signum": signum, "Adan": adan, "AdEMAMix": ademamix, "MADGRAD": madgrad,
    "ADOPT": adopt, "AdaBound": adabound, "QHM": qhm, "QHAdam": qhadam, "AggMo": aggmo,
}
