"""Decontamination: training documents against the test items of benchmarks."""
