"""The REST contract as cases: requests, and the replies that a conforming server must send."""
