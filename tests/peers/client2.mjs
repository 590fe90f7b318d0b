// Lists and calls tools with version 2 of the TypeScript client, in the mode asked for. The task comes in the
// environment, what was seen goes to standard output; both are JSON. Read from standard input by Node, so that
// imports start from the current folder.

import { Client, StreamableHTTPClientTransport } from "@modelcontextprotocol/client";

const { url, token, calls, mode } = JSON.parse(process.env.TASK);
const client = new Client({ name: "client2", version: "1.0.0" }, { versionNegotiation: { mode } });
const transport = new StreamableHTTPClientTransport(new URL(url), {
  requestInit: { headers: { Authorization: `Bearer ${token}` } },
});

await client.connect(transport);
const { tools } = await client.listTools();
const texts = [];
for (const call of calls) {
  const result = await client.callTool(call);
  texts.push(result.content.map((block) => block.text ?? "").join("\n"));
}
const version = client.getNegotiatedProtocolVersion();
await client.close();
console.log(JSON.stringify({ version, tools: tools.map((tool) => tool.name), texts }));
