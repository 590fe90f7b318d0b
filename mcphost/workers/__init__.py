"""Workers: sandboxed processes of servers, from spawn to removal, and who gets which."""
