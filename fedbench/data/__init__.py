"""Data sets, their partition over clients, augmentation."""
