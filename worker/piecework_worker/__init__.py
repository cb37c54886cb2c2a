"""The worker's side of piecework: drains one run and exits. Imports neither kubernetes nor the producer."""
