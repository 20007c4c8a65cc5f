"""The PostgreSQL lab: work on a real server while its programs, its connections and the server itself are struck."""
