"""Images, transforms, landmarks and lung masks: reading, writing, resampling."""
