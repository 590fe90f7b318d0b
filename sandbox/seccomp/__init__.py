"""System call filters: profiles as data, their compiler, and the counting of what they refuse."""
