//! The form of a backup file: a header that tells what it holds, and the content sealed in chunks.
//!
//! ```text
//! "shiplock backup1" · salt 32 · nonce 7 · length of the description 4, big endian · description, JSON
//! chunk · chunk · … · last chunk              each 64 KiB and a tag of 16 bytes; the last one may be shorter
//! ```
//!
//! Chunks are sealed by ChaCha20-Poly1305 in the STREAM construction (<https://eprint.iacr.org/2015/189.pdf>): the
//! nonce of each has its number and whether it is the last, so that chunks left out, moved or cut off do not open. The
//! key belongs to this file alone; it comes from the installation's key and the salt. The header is associated data of
//! every chunk, so a file under another description does not open either.
//!
//! Nothing here ever holds more than one chunk in memory.

use std::io::{self, Read, Write};

use aead_stream::{DecryptorBE32, EncryptorBE32, Nonce, StreamBE32};
use chacha20poly1305::{ChaCha20Poly1305, Key};

use crate::seal::Seal;

/// The first bytes of every backup; the last one names the form, so that another can follow.
const FORM: &[u8; 16] = b"shiplock backup1";
const SALT_BYTES: usize = 32;
/// What the counter and the flag of STREAM leave of the cipher's nonce.
const NONCE_BYTES: usize = 7;
const DESCRIPTION_BYTES_MAX: usize = 16 << 10;
/// Content of a chunk.
pub(super) const CHUNK_BYTES: usize = 64 << 10;
const TAG_BYTES: usize = 16;
const PURPOSE: &str = "backup";

fn damaged(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

fn key_and_nonce(seal: &Seal, salt: &[u8], nonce: [u8; NONCE_BYTES]) -> (Key, Nonce<ChaCha20Poly1305, Stream>) {
    (Key::from(seal.derive_key(PURPOSE, salt)), nonce.into())
}

type Stream = StreamBE32<ChaCha20Poly1305>;

/// Seals what is written to it.
pub(super) struct Writer<W> {
    out: W,
    encryptor: EncryptorBE32<ChaCha20Poly1305>,
    header: Vec<u8>,
    /// Content of the chunk that is not sealed yet: whether it is the last one is known when more comes.
    waiting: Vec<u8>,
}

impl<W: Write> Writer<W> {
    /// Writes the header.
    pub(super) fn begin(mut out: W, seal: &Seal, description: &[u8]) -> io::Result<Self> {
        let length = u32::try_from(description.len()).map_err(|_| damaged("the description is too long"))?;
        let (salt, nonce): ([u8; SALT_BYTES], [u8; NONCE_BYTES]) = (rand::random(), rand::random());
        let header = [&FORM[..], &salt, &nonce, &length.to_be_bytes(), description].concat();
        out.write_all(&header)?;
        let (key, nonce) = key_and_nonce(seal, &salt, nonce);
        let waiting = Vec::with_capacity(CHUNK_BYTES + TAG_BYTES);
        Ok(Self { out, encryptor: EncryptorBE32::new(&key, &nonce), header, waiting })
    }

    /// Adds to the content.
    pub(super) fn write(&mut self, mut content: &[u8]) -> io::Result<()> {
        while !content.is_empty() {
            if self.waiting.len() == CHUNK_BYTES {
                let sealed = self.encryptor.encrypt_next_in_place(&self.header, &mut self.waiting);
                sealed.map_err(|_| io::Error::other("the content is too long to be sealed"))?;
                self.out.write_all(&self.waiting)?;
                self.waiting.clear();
            }
            let (piece, rest) = content.split_at(content.len().min(CHUNK_BYTES - self.waiting.len()));
            self.waiting.extend_from_slice(piece);
            content = rest;
        }
        Ok(())
    }

    /// What is written to.
    pub(super) fn out(&mut self) -> &mut W {
        &mut self.out
    }

    /// Writes the last chunk.
    pub(super) fn finish(mut self) -> io::Result<W> {
        let sealed = self.encryptor.encrypt_last_in_place(&self.header, &mut self.waiting);
        sealed.map_err(|_| io::Error::other("the content is too long to be sealed"))?;
        self.out.write_all(&self.waiting)?;
        Ok(self.out)
    }
}

/// What stands before the chunks.
struct Header {
    whole: Vec<u8>,
    salt: [u8; SALT_BYTES],
    nonce: [u8; NONCE_BYTES],
    description: Vec<u8>,
}

impl Header {
    fn read(from: &mut impl Read) -> io::Result<Self> {
        let cut = |error: io::Error| match error.kind() {
            io::ErrorKind::UnexpectedEof => damaged("it ends within its header"),
            _ => error,
        };
        let (mut form, mut salt, mut nonce, mut length) = ([0; 16], [0; SALT_BYTES], [0; NONCE_BYTES], [0; 4]);
        from.read_exact(&mut form).map_err(cut)?;
        if form != *FORM {
            return Err(damaged("it is no backup, or one of a newer version"));
        }
        for part in [&mut salt[..], &mut nonce, &mut length] {
            from.read_exact(part).map_err(cut)?;
        }
        let description_length = u32::from_be_bytes(length) as usize;
        if description_length > DESCRIPTION_BYTES_MAX {
            return Err(damaged("its description is too long"));
        }
        let mut description = vec![0; description_length];
        from.read_exact(&mut description).map_err(cut)?;
        let whole = [&form[..], &salt, &nonce, &length, &description].concat();
        Ok(Self { whole, salt, nonce, description })
    }
}

/// Reads the description of a backup without opening it: nothing says that nobody changed it.
pub(super) fn read_description(from: &mut impl Read) -> io::Result<Vec<u8>> {
    Header::read(from).map(|header| header.description)
}

/// Opens what a [`Writer`] sealed. What is wrong with the file is an error of kind `InvalidData`.
pub(super) struct Reader<R> {
    from: R,
    /// None after the last chunk.
    decryptor: Option<DecryptorBE32<ChaCha20Poly1305>>,
    header: Header,
    /// Sealed bytes that are left.
    left: u64,
    chunk: Vec<u8>,
}

impl<R: Read> Reader<R> {
    /// Reads the header of a file of a length.
    pub(super) fn open(mut from: R, length: u64, seal: &Seal) -> io::Result<Self> {
        let header = Header::read(&mut from)?;
        let left = length.checked_sub(header.whole.len() as u64).ok_or_else(|| damaged("it ends within its header"))?;
        let (key, nonce) = key_and_nonce(seal, &header.salt, header.nonce);
        let decryptor = Some(DecryptorBE32::new(&key, &nonce));
        Ok(Self { from, decryptor, header, left, chunk: Vec::with_capacity(CHUNK_BYTES + TAG_BYTES) })
    }

    /// The next piece of the content; none after the last one, which proves that the content is whole.
    pub(super) fn next_chunk(&mut self) -> io::Result<Option<&[u8]>> {
        let Some(mut decryptor) = self.decryptor.take() else { return Ok(None) };
        let length = self.left.min((CHUNK_BYTES + TAG_BYTES) as u64);
        self.left -= length;
        self.chunk.clear();
        // The length was cut to that of a chunk.
        let read = (&mut self.from).take(length).read_to_end(&mut self.chunk)?;
        if read as u64 != length {
            return Err(damaged("it became shorter while it was read"));
        }
        let opened = if self.left == 0 {
            decryptor.decrypt_last_in_place(&self.header.whole, &mut self.chunk)
        } else {
            let opened = decryptor.decrypt_next_in_place(&self.header.whole, &mut self.chunk);
            self.decryptor = Some(decryptor);
            opened
        };
        opened.map_err(|_| damaged("it was changed or cut, or sealed with another key"))?;
        Ok(Some(&self.chunk))
    }

    /// The description; true once a chunk was opened.
    pub(super) fn description(&self) -> &[u8] {
        &self.header.description
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DESCRIPTION: &[u8] = b"{\"of\":\"a test\"}";
    const HEADER_BYTES: usize = 16 + SALT_BYTES + NONCE_BYTES + 4 + DESCRIPTION.len();
    const SEALED_CHUNK_BYTES: usize = CHUNK_BYTES + TAG_BYTES;

    fn content(length: usize) -> Vec<u8> {
        (0..length).map(|at| (at % 251) as u8).collect()
    }

    fn sealed(seal: &Seal, content: &[u8], piece: usize) -> Vec<u8> {
        let mut writer = Writer::begin(Vec::new(), seal, DESCRIPTION).unwrap();
        content.chunks(piece).for_each(|piece| writer.write(piece).unwrap());
        writer.finish().unwrap()
    }

    fn opened(seal: &Seal, file: &[u8]) -> io::Result<Vec<u8>> {
        let mut reader = Reader::open(file, file.len() as u64, seal)?;
        assert_eq!(reader.description(), DESCRIPTION);
        let mut content = Vec::new();
        while let Some(chunk) = reader.next_chunk()? {
            content.extend_from_slice(chunk);
        }
        Ok(content)
    }

    #[test]
    fn content_of_any_length_in_any_pieces_comes_out_as_it_went_in() {
        let seal = Seal::ephemeral();
        for length in [0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 3 * CHUNK_BYTES] {
            for piece in [1_000, CHUNK_BYTES, 2 * CHUNK_BYTES] {
                let content = content(length);
                let file = sealed(&seal, &content, piece);
                let chunks = length.div_ceil(CHUNK_BYTES).max(1);
                assert_eq!(file.len(), HEADER_BYTES + length + chunks * TAG_BYTES, "{length}");
                assert!(opened(&seal, &file).unwrap() == content, "{length} in pieces of {piece}");
            }
        }
        let (one, other) = (sealed(&seal, b"same", 4), sealed(&seal, b"same", 4));
        assert_ne!(one[HEADER_BYTES..], other[HEADER_BYTES..], "each file has its own key");
        assert!(!one.windows(4).any(|window| window == b"same"));
    }

    #[test]
    fn a_file_that_was_changed_anywhere_does_not_open() {
        let seal = Seal::ephemeral();
        let file = sealed(&seal, &content(1_000), 1_000);
        assert!(opened(&seal, &file).is_ok());
        for at in (0..file.len()).filter(|at| *at < HEADER_BYTES || at % 16 == 0 || *at + TAG_BYTES >= file.len()) {
            let mut changed = file.clone();
            changed[at] ^= 1;
            let mut reader = match Reader::open(&changed[..], changed.len() as u64, &seal) {
                Err(error) => {
                    assert_eq!(error.kind(), io::ErrorKind::InvalidData, "byte {at}");
                    continue;
                }
                Ok(reader) => reader,
            };
            assert_eq!(reader.next_chunk().unwrap_err().kind(), io::ErrorKind::InvalidData, "byte {at}");
        }
    }

    #[test]
    fn a_file_that_was_cut_prolonged_or_put_together_anew_does_not_open() {
        let seal = Seal::ephemeral();
        let file = sealed(&seal, &content(3 * CHUNK_BYTES + 10), CHUNK_BYTES);
        assert!(opened(&seal, &file).is_ok());
        let (header, chunks) = file.split_at(HEADER_BYTES);
        let chunks: Vec<&[u8]> = chunks.chunks(SEALED_CHUNK_BYTES).collect();
        let [first, second, third, last] = chunks[..] else { panic!("{} chunks", chunks.len()) };
        let other = sealed(&seal, &content(3 * CHUNK_BYTES + 10), CHUNK_BYTES);
        let of_other = &other[HEADER_BYTES..HEADER_BYTES + SEALED_CHUNK_BYTES];
        let table: [(&str, Vec<&[u8]>); 9] = [
            ("the last chunk is missing", vec![header, first, second, third]),
            ("only the header is left", vec![header]),
            ("a chunk is missing", vec![header, first, third, last]),
            ("two chunks changed places", vec![header, second, first, third, last]),
            ("a chunk is there twice", vec![header, first, first, second, third, last]),
            ("the last chunk comes early", vec![header, last]),
            ("something follows", vec![header, first, second, third, last, b"x"]),
            ("a chunk is of another file", vec![header, of_other, second, third, last]),
            ("it is cut within a chunk", vec![header, first, &second[..100]]),
        ];
        for (what, parts) in table {
            let error = opened(&seal, &parts.concat()).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{what}");
        }
        for length in 0..HEADER_BYTES {
            assert!(Reader::open(&file[..length], length as u64, &seal).is_err(), "cut to {length}");
        }
    }

    #[test]
    fn another_installations_key_opens_nothing() {
        let file = sealed(&Seal::ephemeral(), b"content", 7);
        let error = opened(&Seal::ephemeral(), &file).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }
}
