"""Numbers to raise by one when a change of the code changes the features of an unchanged recipe.

They are part of every base's fingerprint: features made before the change are then not mixed with later ones.
"""

# pixels of a decoded photo
DECODER = 1
# what networks.py builds from the same settings: preprocessing, pooling, random weights
NETWORKS = 1
