"""How clients and operators reach the runtime: Streamable HTTP, and the admin pages."""
