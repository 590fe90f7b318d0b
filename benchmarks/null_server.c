/* A legacy stdio MCP server that does nothing, so that the broker in front of it is what is measured.
 *
 * It answers `initialize` and `tools/list` with constants and every other request with an empty text. It reads
 * only what it needs of a line: the integer id that the runtime gave it, and the method's first letters.
 * Error handling is what a benchmark needs: it ends when its input does. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int main(void) {
  char *line = NULL;
  size_t size = 0;
  static char out[1 << 16];
  setvbuf(stdout, out, _IOFBF, sizeof out);
  while (getline(&line, &size, stdin) > 0) {
    char *id = strstr(line, "\"id\":");
    if (id == NULL) continue; /* a notification */
    long number = strtol(id + 5, NULL, 10);
    if (strstr(line, "\"method\":\"initialize\"") != NULL)
      printf("{\"jsonrpc\":\"2.0\",\"id\":%ld,\"result\":{\"protocolVersion\":\"2025-11-25\",\"capabilities\":"
             "{\"tools\":{}},\"serverInfo\":{\"name\":\"null\",\"version\":\"1\"}}}\n", number);
    else if (strstr(line, "\"method\":\"tools/list\"") != NULL)
      printf("{\"jsonrpc\":\"2.0\",\"id\":%ld,\"result\":{\"tools\":[{\"name\":\"echo\",\"inputSchema\":"
             "{\"type\":\"object\"}}]}}\n", number);
    else if (strstr(line, "\"method\":\"server/discover\"") != NULL)
      printf("{\"jsonrpc\":\"2.0\",\"id\":%ld,\"error\":{\"code\":-32601,\"message\":\"no\"}}\n", number);
    else
      printf("{\"jsonrpc\":\"2.0\",\"id\":%ld,\"result\":{\"content\":[{\"type\":\"text\",\"text\":\"\"}]}}\n",
             number);
    fflush(stdout);
  }
  return 0;
}
