"""Where models come from: a model reference enters, the blueprint of a module leaves."""
