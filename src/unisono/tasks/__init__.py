"""What is predicted: heads with their loss, calibration, metrics and output columns."""
