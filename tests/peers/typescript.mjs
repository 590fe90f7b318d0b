// Versions 1 and 2 of the TypeScript SDK, which differ little for a client. The task and its verbs are those of
// steps.py. Read from standard input by Node, so that imports start from the current folder.

const TASK = JSON.parse(process.env.TASK);
const SECONDS = 25;
const legacyOnly = TASK.sdk === 1;

const { Client, StreamableHTTPClientTransport, ...named } = legacyOnly
  ? {
      ...(await import("@modelcontextprotocol/sdk/client/index.js")),
      ...(await import("@modelcontextprotocol/sdk/client/streamableHttp.js")),
      ...(await import("@modelcontextprotocol/sdk/types.js")),
    }
  : await import("@modelcontextprotocol/client");

async function connect({ url, token, answer }) {
  const client = new Client(
    { name: "typescript", version: "1.0.0" },
    {
      capabilities: answer ? { elicitation: { form: {}, url: {} }, sampling: {}, roots: {} } : {},
      versionNegotiation: { mode: TASK.mode },
    },
  );
  const transport = new StreamableHTTPClientTransport(new URL(url), {
    requestInit: { headers: { Authorization: `Bearer ${token}` } },
  });

  // Version 1 wants a schema where version 2 wants the name of a method.
  const answers = (method, schema, give) => client.setRequestHandler(legacyOnly ? named[schema] : method, give);
  const hears = (method, schema, take) => client.setNotificationHandler(legacyOnly ? named[schema] : method, take);

  if (answer) {
    answers("elicitation/create", "ElicitRequestSchema", async ({ params }) => {
      if (params.mode === "url") return { action: "accept" };
      const [field] = params.requestedSchema.required;
      return { action: "accept", content: { [field]: answer } };
    });
    answers("sampling/createMessage", "CreateMessageRequestSchema", async () => ({
      role: "assistant",
      content: { type: "text", text: answer },
      model: "none",
    }));
    answers("roots/list", "ListRootsRequestSchema", async () => ({
      roots: [{ uri: `file:///${answer}`, name: answer }],
    }));
  }
  const logs = [];
  hears("notifications/message", "LoggingMessageNotificationSchema", async (message) => {
    logs.push(String(message.params.data));
  });

  // What a notification of a kind brings, the next time one comes.
  const waiting = new Map();
  const heard = (method) => new Promise((resolve) => waiting.set(method, resolve));
  const tell = (method) => async (message) => waiting.get(method)?.(message.params);
  const UPDATED = "notifications/resources/updated";
  const CHANGED = "notifications/resources/list_changed";
  hears(UPDATED, "ResourceUpdatedNotificationSchema", tell(UPDATED));
  hears(CHANGED, "ResourceListChangedNotificationSchema", tell(CHANGED));

  const modern = () => client.getProtocolEra?.() === "modern";
  const textOf = (blocks) => blocks.map((block) => block.text ?? "").join("\n");
  const callTool = (name, args, options = {}, more = {}) =>
    legacyOnly
      ? client.callTool({ name, arguments: args, ...more }, undefined, options)
      : client.callTool({ name, arguments: args, ...more }, options);

  async function every(ask, part) {
    const found = [];
    let cursor;
    do {
      const page = await ask(cursor ? { cursor } : {});
      found.push(...page[part]);
      cursor = page.nextCursor;
    } while (cursor);
    return found;
  }

  const verbs = {
    version: async () => client.getNegotiatedProtocolVersion?.() ?? transport.protocolVersion,
    tools: async () => (await every((page) => client.listTools(page), "tools")).map((tool) => tool.name),
    async call(name, args) {
      const result = await callTool(name, args);
      return { text: textOf(result.content), isError: result.isError ?? false };
    },
    async progress(name, args) {
      const reported = [];
      await callTool(name, args, { onprogress: ({ progress }) => reported.push(progress) });
      return reported;
    },
    async cancel(name, args) {
      const controller = new AbortController();
      const options = { signal: controller.signal, onprogress: () => controller.abort("no longer wanted") };
      return callTool(name, args, options).then(
        () => false,
        () => controller.signal.aborted,
      );
    },
    resources: async () => (await every((page) => client.listResources(page), "resources")).map((each) => each.uri),
    templates: async () =>
      (await every((page) => client.listResourceTemplates(page), "resourceTemplates")).map((each) => each.uriTemplate),
    read: async (uri) => textOf((await client.readResource({ uri })).contents),
    prompts: async () => (await every((page) => client.listPrompts(page), "prompts")).map((each) => each.name),
    prompt: async (name, args) =>
      textOf((await client.getPrompt({ name, arguments: args })).messages.map((message) => message.content)),
    complete: async (prompt, name, value) =>
      (await client.complete({ ref: { type: "ref/prompt", name: prompt }, argument: { name, value } })).completion.values,
    async logs(level, name, args) {
      logs.length = 0;
      if (modern()) {
        await callTool(name, args, {}, { _meta: { "io.modelcontextprotocol/logLevel": level } });
      } else {
        await client.setLoggingLevel(level);
        await callTool(name, args);
      }
      return [...logs];
    },
    async updated(uri, name, args) {
      const update = heard(UPDATED);
      const subscription = modern() ? await client.listen({ resourceSubscriptions: [uri] }) : undefined;
      if (!subscription) await client.subscribeResource({ uri });
      await callTool(name, args);
      const params = await update;
      if (subscription) await subscription.close();
      else await client.unsubscribeResource({ uri });
      return params.uri;
    },
    async changed(name, args) {
      const change = heard(CHANGED);
      const subscription = modern() ? await client.listen({ resourcesListChanged: true }) : undefined;
      await callTool(name, args);
      await change;
      await subscription?.close();
      return CHANGED;
    },
  };

  await client.connect(transport);
  const close = async () => {
    // Version 1 has sessions to end.
    await transport.terminateSession?.();
    await client.close();
  };
  return { verbs, close };
}

const late = () =>
  new Promise((_, reject) => setTimeout(() => reject(new Error("nothing came in time")), SECONDS * 1000).unref());

const seen = [];
for (const visit of TASK.visits) {
  const { verbs, close } = await connect(visit);
  const told = [];
  seen.push(told);
  for (const [verb, ...args] of visit.steps) {
    const act = verbs[verb];
    if (!act) throw new Error(`no such verb: ${verb}`);
    try {
      told.push({ got: await Promise.race([act(...args), late()]) });
    } catch (error) {
      const code = Number.isInteger(error.code) ? error.code : null;
      told.push({ error: { code, message: String(error.message) } });
    }
  }
  await close();
}
console.log(JSON.stringify(seen));
