//! Round trips with the bytes cut anywhere, and what is refused.

use bytes::{BufMut as _, BytesMut};
use proptest::prelude::*;

use super::{Decoded, Decoder};

/// The data, the number of trailers, the bytes left over.
type Read = Option<(Vec<u8>, usize, usize)>;

/// Feeds `wire` in pieces, and says what came out.
fn decode(wire: &[u8], cuts: &[usize]) -> Result<Read, &'static str> {
    let (mut decoder, mut buffer, mut data) = (Decoder::new(), BytesMut::new(), Vec::new());
    let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut % (wire.len() + 1)).collect();
    cuts.extend([0, wire.len()]);
    cuts.sort_unstable();
    for piece in cuts.windows(2).map(|ends| &wire[ends[0]..ends[1]]) {
        buffer.put_slice(piece);
        loop {
            match decoder.decode(&mut buffer)? {
                None => break,
                Some(Decoded::Data(bytes)) => data.extend_from_slice(&bytes),
                Some(Decoded::End(trailers)) => {
                    let fed = piece.as_ptr() as usize + piece.len() - wire.as_ptr() as usize;
                    let left = buffer.len() + wire.len() - fed;
                    return Ok(Some((data, trailers.len(), left)));
                }
            }
        }
    }
    Ok(None)
}

proptest! {
    #[test]
    fn any_chunks_cut_anywhere_come_back(
        chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..300), 0..8),
        trailers in 0_usize..3,
        next in prop::collection::vec(any::<u8>(), 0..20),
        cuts in prop::collection::vec(any::<usize>(), 0..12),
        upper in any::<bool>(),
    ) {
        let mut wire = Vec::new();
        for chunk in &chunks {
            let size = match upper {
                true => format!("{:X};a=\"b\"\r\n", chunk.len()),
                false => format!("000{:x}\r\n", chunk.len()),
            };
            wire.extend_from_slice(size.as_bytes());
            wire.extend_from_slice(chunk);
            wire.extend_from_slice(b"\r\n");
        }
        wire.extend_from_slice(b"0\r\n");
        for trailer in 0..trailers {
            wire.extend_from_slice(format!("x-{trailer}: {trailer}\r\n").as_bytes());
        }
        wire.extend_from_slice(b"\r\n");
        wire.extend_from_slice(&next);
        let expected = Some((chunks.concat(), trailers, next.len()));
        prop_assert_eq!(decode(&wire, &cuts).unwrap(), expected);
    }

    #[test]
    fn noise_never_panics(
        wire in "[0-9a-f;\r\n x:]{0,60}",
        cuts in prop::collection::vec(any::<usize>(), 0..4),
    ) {
        let whole = decode(wire.as_bytes(), &[]);
        prop_assert_eq!(decode(wire.as_bytes(), &cuts), whole, "cuts change nothing");
    }
}

#[track_caller]
fn refused(wire: &str, why: &str) {
    let start: String = wire.chars().take(40).collect();
    assert_eq!(decode(wire.as_bytes(), &[]), Err(why), "{start:?}");
}

#[test]
fn what_another_reader_could_take_differently_is_refused() {
    refused("2\nok\r\n0\r\n\r\n", "bad chunk");
    refused("2\r\nok\n0\r\n\r\n", "bad chunk");
    refused("2\r\nokk\r\n0\r\n\r\n", "bad chunk");
    refused("2;a\nb\r\nok\r\n0\r\n\r\n", "bad chunk");
    refused("2;a\0\r\nok\r\n0\r\n\r\n", "bad chunk");
    refused("2\r\r\nok\r\n0\r\n\r\n", "bad chunk");
    refused("0x2\r\nok\r\n0\r\n\r\n", "bad chunk");
    refused("-2\r\nok", "chunk without a size");
    refused("+2\r\nok", "chunk without a size");
    refused(" 2\r\nok", "chunk without a size");
    refused("\r\n", "chunk without a size");
    refused(";a\r\n", "chunk without a size");
    refused("ffffffffffffffff\r\n", "chunk size too large");
    refused("0000000000000002\r\n", "chunk size too large");
    refused("0\r\na b\r\n\r\n", "bad trailers");
    refused("0\r\na: b\r\n c\r\n\r\n", "bad trailers");
    refused(
        &format!("2;{}\r\nok", "a".repeat(20_000)),
        "chunk extensions too long",
    );
    refused(
        &"1;aaaaaaaaaaaaaaaa\r\nx\r\n".repeat(1_100),
        "chunk extensions too long",
    );
    refused(
        &format!("0\r\na: {}", "a".repeat(20_000)),
        "trailers too long",
    );
}
