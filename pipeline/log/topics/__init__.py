"""Topics of Kafka as logs: what a topic held at one moment, by partition and offset."""
