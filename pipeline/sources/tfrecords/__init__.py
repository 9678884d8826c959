"""TFRecord files without TensorFlow, and the datasets that Meta-Dataset's own tools wrote in them.

framing (records, tf.Example) ─► spec (dataset_spec.json) ─► source
"""
