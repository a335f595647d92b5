"""The files of a build's log; of a topic, its partitions and the offsets that the build reads.

A build reads a topic up to where it ends when the build begins, and its manifest says where that
was. A build on top of it goes on from there; one that is resumed keeps to the offsets it began
with.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.arguments import BuildArguments
from pipeline.job.finished_steps import BUILD
from pipeline.log import topic_files
from pipeline.log.input_files import list_inputs
from pipeline.log.raw_batch import InputFile
from pipeline.log.topics import bounds
from pipeline.log.topics.topic import Messages, Topic
from preprocessing import data_dir
from preprocessing.data_dir import DataDir
from preprocessing.json_checks import read_json

TOPICS = "topics"
"""Key of the manifest: where to go on in each topic that the builds so far have read."""


def list_log(arguments: BuildArguments) -> list[InputFile]:
    """The files of the log, or the partitions of the topic that it is.

    Raises:
        UserError: A file is missing; there is no such topic, or it is not that of the base.
    """
    if not arguments.reads_topic:
        return list_inputs(arguments.input, dialect=arguments.dialect)
    if arguments.resume and (begun := begun_files(arguments)):
        return begun
    topic = Topic.parse(arguments.input, arguments.kafka_config)
    before = None
    if arguments.base is not None:
        manifest = DataDir.open(arguments.base, verify=False).manifest
        before = manifest.get(TOPICS, {}).get(topic.name)
    return topic_files.list_topic(topic, before, arguments.kafka_lost)


def begun_files(arguments: BuildArguments) -> list[InputFile]:
    """What a complete or unfinished build in the output reads of the topic; empty if of none."""
    topic = Topic.parse(arguments.input, arguments.kafka_config)
    manifest = arguments.output_path / data_dir.MANIFEST
    build = arguments.work_path / BUILD
    states: dict[str, Sequence[Any]] = {}
    if (arguments.output_path / data_dir.COMPLETED).exists():
        content = read_json(manifest, "a manifest", "build without --resume.")
        identity = content.get(TOPICS, {}).get(topic.name, {}).get("id")
        states = {
            account["path"]: (account["begin"], account["end"], identity)
            for account in content["inputs"]
            if "begin" in account
        }
    elif build.exists():
        states = read_json(build, "an unfinished build", "build without --resume.")["log"]
    states = {path: state for path, state in states.items() if path.startswith(f"{topic.url}/")}
    return topic_files.as_files(
        [
            Messages(Topic(topic.servers, topic.name, topic.config, identity), number, begin, end)
            for number, (begin, end, identity) in enumerate(states.values())
        ]
    )


def topics_read(log: Sequence[InputFile], before: Mapping[str, Any]) -> dict[str, Any]:
    """What the manifest says of topics: where the next build goes on.

    Args:
        log: Files of the log, or partitions.
        before: What the manifest of the base says of topics.
    """
    parts = [file.messages for file in log if file.messages is not None]
    read = {parts[0].topic.name: bounds.as_read(parts)} if parts else {}
    return {**before, **read}
