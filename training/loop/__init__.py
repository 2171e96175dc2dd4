"""The training loop: configuration, schedules, augmentation, metrics, floors, and the trainer."""
