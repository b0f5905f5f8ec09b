//! Reads server-sent events out of bytes, see
//! <https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation>.
//!
//! Pure: it never reads from the network itself. Only `data` is kept; the event's number is in it.

/// The largest single event. The first one of an upgrade holds the whole plan.
const EVENT_BYTES_MAX: usize = super::answer::ANSWER_BYTES_MAX;

/// The reader of one stream.
#[derive(Debug, Default)]
pub(super) struct SseReader {
    line: Vec<u8>,
    data: Vec<u8>,
    after_carriage_return: bool,
}

/// An event is too large.
#[derive(Debug)]
pub(super) struct TooLarge;

impl SseReader {
    /// Takes the next bytes and gives the data of the events that they complete.
    pub(super) fn take(&mut self, bytes: &[u8]) -> Result<Vec<Vec<u8>>, TooLarge> {
        let mut complete = Vec::new();
        for &byte in bytes {
            let line_feed_of_pair = byte == b'\n' && self.after_carriage_return;
            self.after_carriage_return = byte == b'\r';
            match byte {
                _ if line_feed_of_pair => {}
                b'\n' | b'\r' => complete.extend(self.end_line()),
                _ => self.line.push(byte),
            }
            if self.line.len() + self.data.len() > EVENT_BYTES_MAX {
                return Err(TooLarge);
            }
        }
        Ok(complete)
    }

    fn end_line(&mut self) -> Option<Vec<u8>> {
        let line = std::mem::take(&mut self.line);
        if line.is_empty() {
            let mut data = std::mem::take(&mut self.data);
            // Each line of data ended with a line feed, the last one too.
            return (data.pop().is_some()).then_some(data);
        }
        let colon = line.iter().position(|byte| *byte == b':').unwrap_or(line.len());
        if &line[..colon] == b"data" {
            let value = line.get(colon + 1..).unwrap_or_default();
            self.data.extend_from_slice(value.strip_prefix(b" ").unwrap_or(value));
            self.data.push(b'\n');
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(chunks: &[&str]) -> Vec<String> {
        let mut reader = SseReader::default();
        let events = chunks.iter().flat_map(|chunk| reader.take(chunk.as_bytes()).unwrap());
        events.map(|data| String::from_utf8(data).unwrap()).collect()
    }

    #[test]
    fn events_come_whole_however_the_bytes_are_cut() {
        let cases: [(&[&str], &[&str]); 8] = [
            (&["id: 1\ndata: a\n\n"], &["a"]),
            (&["da", "ta: a\n", "\nda", "ta:b\n\n"], &["a", "b"]),
            (&["data: a\ndata: b\n\n"], &["a\nb"]),
            (&["data: a\r\n\r\ndata: b\r\n\r\n"], &["a", "b"]),
            (&["data: a\r", "\n\r", "\ndata: b\r\r"], &["a", "b"]),
            (&[": keep-alive\n\n: again\n\n"], &[]),
            (&["id: 7\nevent: x\nretry: 5\n\n"], &[]),
            (&["data: cut off"], &[]),
        ];
        for (chunks, expected) in cases {
            assert_eq!(read(chunks), expected, "{chunks:?}");
        }
    }
}
