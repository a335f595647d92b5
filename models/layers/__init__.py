"""Building blocks of the models: one public class or one coherent family per file."""
