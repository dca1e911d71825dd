"""Read a job's CloudWatch log: new lines while it runs, the last ones afterwards."""

from __future__ import annotations

from ml_pipeline.aws.clients import Client
from ml_pipeline.requests.types import Document


class LogTail:
    """The log streams of one job.

    Args:
        group: Log group.
        prefix: Start of the names of the job's streams: one stream per machine.
    """

    def __init__(self, group: str, prefix: str) -> None:
        self._group = group
        self._prefix = prefix
        self._tokens: dict[str, str | None] = {}

    async def read(self, client: Client) -> list[str]:
        """Return the lines that came since the last call, oldest first within a machine.

        A job has no stream before its first line: that is no error.

        Args:
            client: aiobotocore client of CloudWatch Logs.
        """
        from botocore.exceptions import ClientError

        lines: list[str] = []
        try:
            await self._find_streams(client)
            for stream in self._tokens:
                lines += await self._read_stream(client, stream)
        except ClientError as error:
            if error.response["Error"]["Code"] != "ResourceNotFoundException":
                raise
        return lines

    async def _find_streams(self, client: Client) -> None:
        arguments = {"logGroupName": self._group, "logStreamNamePrefix": self._prefix}
        response = await client.describe_log_streams(**arguments)
        for stream in response.get("logStreams", []):
            self._tokens.setdefault(stream["logStreamName"], None)

    async def _read_stream(self, client: Client, stream: str) -> list[str]:
        # An interrupted spot job continues in a second stream, but still on a single machine.
        several = len({machine_of(known) for known in self._tokens}) > 1
        start = f"[{machine_of(stream)}] " if several else ""
        lines: list[str] = []
        while True:
            arguments: Document = {
                "logGroupName": self._group,
                "logStreamName": stream,
                "startFromHead": True,
            }
            token = self._tokens[stream]
            if token:
                arguments["nextToken"] = token
            response = await client.get_log_events(**arguments)
            lines += [f"{start}{event['message']}" for event in response["events"]]
            self._tokens[stream] = response["nextForwardToken"]
            # The end of a stream is where the token stays the same (GetLogEvents API reference).
            if response["nextForwardToken"] == token or not response["events"]:
                return lines


def machine_of(stream: str) -> str:
    """Return the machine in a stream's name: "algo-2" of "<job>/algo-2-1732312800"."""
    return stream.rpartition("/")[2].rpartition("-")[0]


def last_lines(client: Client, group: str, prefix: str, count: int = 100) -> list[str]:
    """Return the last `count` lines of each stream under `prefix`, stream after stream; [] where there is no log.

    Args:
        client: boto3 client of CloudWatch Logs.
        group: Name of the log group.
        prefix: First part of the names of the log streams: the job's name.
        count: Lines to return of each stream.
    """
    from botocore.exceptions import ClientError

    lines: list[str] = []
    try:
        streams = client.describe_log_streams(logGroupName=group, logStreamNamePrefix=prefix)["logStreams"]
        for stream in streams:
            events = client.get_log_events(
                logGroupName=group, logStreamName=stream["logStreamName"], startFromHead=False, limit=count
            )["events"]
            lines += [event["message"] for event in events]
    except ClientError as error:
        if error.response["Error"]["Code"] != "ResourceNotFoundException":
            raise
    return lines
