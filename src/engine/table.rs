//! Sharded, bounded per-client state.
