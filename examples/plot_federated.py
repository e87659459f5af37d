"""
Federated digits
================

Five clients have two digits each, and keep their images to themselves. In each round every client trains the server's
network on its own, and the server makes one network of the five. The panel on the right shows who has what.
"""

import numpy as np

import tinygrad_opt as tg
from tinygrad_opt.distributed import federated, split_by_class

train, test = tg.data.digits()


def network():
    return tg.nn.Sequential(tg.nn.Linear(64, 32), tg.nn.ReLU(), tg.nn.Linear(32, 10))


clients = split_by_class(train, clients=5, classes_each=2)
options = dict(rounds=20, local_steps=8, lr=0.3, test=test)
fedavg = federated(network, clients, "fedavg", **options)
scaffold = federated(network, clients, "scaffold", **options)
fedadam = federated(network, clients, "fedadam", server_lr=0.1, **options)
for run in (fedavg, scaffold, fedadam):
    print(run)
figure = fedavg.draw(scaffold, fedadam)

# %%
# Drift is how far from their average the clients arrive. SCAFFOLD's control variates hold it down from the second
# round on, and cost twice the bytes. FedAdam corrects nothing, and has a better optimizer on the server: drift falls
# when one model suits all.
#
# Is it the two digits? Deal the same images out at random, and FedAvg has no trouble.

shuffled = np.random.default_rng(0).permutation(len(train))
mixed = [tg.data.Subset(train, part) for part in np.array_split(shuffled, 5)]
alike = federated(network, mixed, "fedavg", **options)
print(alike)
figure = alike.draw()

# %%
# Between the two lies a Dirichlet distribution: the smaller its alpha, the fewer classes a client has, and the more
# unequal the clients are in size.

for alpha in (0.1, 1.0, 10.0):
    parts = tg.distributed.split_dirichlet(train, clients=5, alpha=alpha)
    run = federated(network, parts, "fedavg", **options)
    print(f"alpha {alpha:4}: {run}; clients of {', '.join(str(len(part)) for part in parts)} images")
