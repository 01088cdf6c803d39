//! Counting within `findtime`.
