"""The scikit-learn shells: validate, resolve, hand one problem over, assign fitted attributes last."""
