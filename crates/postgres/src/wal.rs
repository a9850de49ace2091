//! Arithmetic on WAL positions: where a record ends, and which segment file a position is in.
//!
//! Sources: `xlogrecord.h`, `xlog_internal.h` (page headers, `XLogFileName`), `pg_control.h`
//! (`CheckPoint`), `xlog.c` (`XLogBytePosToEndRecPtr`); the same in PostgreSQL 14 to 17.

use tier0_core::words::{Lsn, Timeline};

/// `XLOG_BLCKSZ` of every packaged PostgreSQL. `pg_controldata` is checked against it.
pub(crate) const PAGE: u64 = 8192;
/// `SizeOfXLogShortPHD`: `MAXALIGN(sizeof(XLogPageHeaderData))`, 20 bytes padded.
const SHORT_HEADER: u64 = 24;
/// `SizeOfXLogLongPHD`: the header of a segment's first page.
const LONG_HEADER: u64 = 40;
/// `SizeOfXLogRecord`: total length 4, xid 4, previous 8, info 1, manager 1, padding 2, crc 4.
const RECORD_HEADER: u64 = 24;
/// `SizeOfXLogRecordDataHeaderShort`: block id 1, data length 1.
const DATA_HEADER: u64 = 2;
/// `sizeof(CheckPoint)`: redo 8, two timelines 8, fullPageWrites with padding 8, nextXid 8, eight
/// 4-byte counters from nextOid to oldestMultiDB less one (28) with padding 4, time 8, two commit
/// timestamps and oldestActiveXid 12, padding 4.
const CHECKPOINT: u64 = 88;
/// The length of a checkpoint record as it is in `xl_tot_len`.
pub(crate) const CHECKPOINT_RECORD: u64 = RECORD_HEADER + DATA_HEADER + CHECKPOINT;

/// Where a record ends that begins at `start` and is `length` bytes long: rounded up to 8, with
/// the headers of the pages it crosses. A record that ends with its page ends there, before the
/// next page's header.
pub(crate) fn record_end(start: Lsn, length: u64, segment: u64) -> Lsn {
    let mut left = length.next_multiple_of(8);
    let mut at = start.bytes();
    loop {
        let on_page = PAGE - at % PAGE;
        if left <= on_page {
            return Lsn::from_bytes(at + left);
        }
        left -= on_page;
        at += on_page;
        at += if at.is_multiple_of(segment) { LONG_HEADER } else { SHORT_HEADER };
    }
}

/// Number of the segment that holds the byte at `lsn`.
pub(crate) fn segment_of(lsn: Lsn, segment: u64) -> u64 {
    lsn.bytes() / segment
}

/// Timeline and number of a segment's file name; `None` for any other file.
pub(crate) fn parse_segment_name(name: &str, segment: u64) -> Option<(Timeline, u64)> {
    if name.len() != 24 || !name.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let part = |range| u64::from_str_radix(&name[range], 16).ok();
    let timeline = u32::try_from(part(0..8)?).ok()?;
    Some((Timeline(timeline), part(8..16)? * (0x1_0000_0000 / segment) + part(16..24)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MB16: u64 = 16 << 20;

    fn end(start: u64, length: u64) -> u64 {
        record_end(Lsn::from_bytes(start), length, MB16).bytes()
    }

    #[test]
    fn a_checkpoint_takes_120_bytes_within_a_page() {
        assert_eq!(CHECKPOINT_RECORD, 114);
        assert_eq!(end(0x0100_0028, CHECKPOINT_RECORD), 0x0100_0028 + 120);
    }

    #[test]
    fn a_record_that_fills_its_page_ends_before_the_next_header() {
        assert_eq!(end(3 * PAGE - 120, 114), 3 * PAGE);
    }

    #[test]
    fn a_crossing_adds_the_header_of_the_page_it_goes_on_in() {
        assert_eq!(end(3 * PAGE - 112, 114), 3 * PAGE + 24 + 8);
        assert_eq!(end(MB16 - 8, 114), MB16 + 40 + 112);
        assert_eq!(end(3 * PAGE - 8, 8 + 8168 + 8), 4 * PAGE + 24 + 8);
    }

    #[test]
    fn names_of_segments() {
        let name = "000000030000000100000023";
        assert_eq!(parse_segment_name(name, MB16), Some((Timeline(3), 0x1_23)));
        assert_eq!(parse_segment_name("00000003.history", MB16), None);
        assert_eq!(parse_segment_name("000000030000000100000023.partial", MB16), None);
    }
}
