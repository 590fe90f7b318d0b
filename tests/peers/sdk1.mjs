// Lists and calls tools with version 1 of the TypeScript SDK. The task comes in the environment, what was seen goes to
// standard output; both are JSON. Read from standard input by Node, so that imports start from the current folder.

import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { StreamableHTTPClientTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js";

const { url, token, calls } = JSON.parse(process.env.TASK);
const client = new Client({ name: "sdk1", version: "1.0.0" });
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
await transport.terminateSession();
await client.close();
console.log(JSON.stringify({ version: transport.protocolVersion, tools: tools.map((tool) => tool.name), texts }));
