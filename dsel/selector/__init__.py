"""The methods: from a pool to the examples to train on."""
