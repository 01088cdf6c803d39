//! Whole documents in, configurations or every problem out.
