"""What a server or a client chooses makes the metrics neither many nor long."""

from mcphost.telemetry.metrics import MAX_TOOL_CHARACTERS, MAX_TOOLS, Metrics


def shown(*tools: str) -> str:
    metrics = Metrics("0")
    metrics.know_tools("fix", tools)
    for tool in tools:
        metrics.tool(tenant="acme", server="fix", tool=tool, seconds=0.1)
    return metrics.render().decode()


def test_a_tool_of_a_longer_name_than_the_protocol_has_is_counted_among_the_others() -> None:
    longest, longer = "a" * MAX_TOOL_CHARACTERS, "b" * (MAX_TOOL_CHARACTERS + 1)
    text = shown(longest, longer)
    assert f'tool="{longest}"' in text
    assert longer not in text
    assert 'mcp_tool_duration_seconds_count{server="fix",tenant="acme",tool="other"} 1.0' in text


def test_a_server_of_many_tools_makes_no_more_than_so_many_series() -> None:
    text = shown(*(f"tool-{number:03}" for number in range(2 * MAX_TOOLS)))
    assert text.count("mcp_tool_duration_seconds_count{") == MAX_TOOLS + 1
