"""Numbers to raise by one when a change of the code changes the features of an unchanged recipe.

`DECODER` and `NETWORKS` are part of every base's fingerprint, `AUGMENTATION` of each augmented view's key:
features made before the change are then not mixed with later ones.
"""

# pixels of a decoded photo
DECODER = 2
# what networks.py builds from the same settings: preprocessing, pooling, random weights
NETWORKS = 1
# augmented pixels of a decoded photo; the plain photo has none of it
AUGMENTATION = 1
