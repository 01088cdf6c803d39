//! The `jailgate` binary.

fn main() {}
