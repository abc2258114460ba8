//! Messages on their way in: one that may be large is taken as the bytes that arrive, to be read away from the threads that
//! answer everybody.

use std::marker::PhantomData;

use bytes::{Buf, Bytes};
use prost::Message;
use tonic::{
    Status,
    codec::{Codec, DecodeBuf, Decoder},
};
use tonic_prost::ProstEncoder;

use super::protocol::ModelInferRequest;

/// What arrives as a message.
pub(super) trait Arriving: Sized {
    fn arrive(message: &mut DecodeBuf<'_>) -> Result<Self, Status>;
}

impl<M: Message + Default> Arriving for M {
    fn arrive(message: &mut DecodeBuf<'_>) -> Result<Self, Status> {
        Self::decode(message).map_err(|error| unreadable(&error))
    }
}

/// What a client wants scored, as it arrived.
#[derive(Debug)]
pub(super) struct UnreadInferRequest(Bytes);

impl Arriving for UnreadInferRequest {
    fn arrive(message: &mut DecodeBuf<'_>) -> Result<Self, Status> {
        Ok(Self(message.copy_to_bytes(message.remaining())))
    }
}

impl UnreadInferRequest {
    /// How many bytes it has.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// The message.
    pub(super) fn read(self) -> Result<ModelInferRequest, Status> {
        ModelInferRequest::decode(self.0).map_err(|error| unreadable(&error))
    }
}

/// The status of a message that isn't one, as gRPC's libraries have it.
fn unreadable(error: &prost::DecodeError) -> Status {
    Status::internal(error.to_string())
}

/// Takes messages as they are to arrive, and writes them as Protocol Buffers does.
#[derive(Debug)]
pub(super) struct ArrivingCodec<T, U>(PhantomData<(T, U)>);

impl<T, U> Default for ArrivingCodec<T, U> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T: Message + Send + 'static, U: Arriving + Send + 'static> Codec for ArrivingCodec<T, U> {
    type Encode = T;
    type Decode = U;
    type Encoder = ProstEncoder<T>;
    type Decoder = ArrivingDecoder<U>;

    fn encoder(&mut self) -> Self::Encoder {
        ProstEncoder::default()
    }

    fn decoder(&mut self) -> Self::Decoder {
        ArrivingDecoder(PhantomData)
    }
}

#[derive(Debug)]
pub(super) struct ArrivingDecoder<U>(PhantomData<U>);

impl<U: Arriving> Decoder for ArrivingDecoder<U> {
    type Item = U;
    type Error = Status;

    fn decode(&mut self, message: &mut DecodeBuf<'_>) -> Result<Option<U>, Status> {
        U::arrive(message).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::Full;
    use tonic::Streaming;

    use super::{super::protocol::ModelInferResponse, *};

    async fn arrive<U: Arriving + Send + 'static>(frame: &'static [u8]) -> Result<Option<U>, Status> {
        let decoder = ArrivingCodec::<ModelInferResponse, U>::default().decoder();
        Streaming::new_request(decoder, Full::new(Bytes::from_static(frame)), None, None).message().await
    }

    #[tokio::test]
    async fn what_may_be_large_is_read_when_it_is_asked_for() {
        // Bytes that are no message.
        let frame = b"\0\0\0\0\x03\xff\xff\xff";
        assert!(arrive::<ModelInferRequest>(frame).await.is_err());
        let unread = arrive::<UnreadInferRequest>(frame).await.unwrap().unwrap();
        assert_eq!(unread.len(), 3);
        assert!(unread.read().is_err());
    }
}
