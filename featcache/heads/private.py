"""Private names of scikit-learn that heads use to validate their parameters, in one place.

They may change in any release. Tested with scikit-learn 1.9.1.
"""

from sklearn.utils._param_validation import Interval, InvalidParameterError, StrOptions

__all__ = ["Interval", "InvalidParameterError", "StrOptions"]
