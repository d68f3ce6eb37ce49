//! Writes envelopes into the batch of a lane.

use super::{Arrival, Envelope, Head};

fn push_head(batch: &mut Vec<u8>, head: &Head) {
    let writer = std::mem::take(batch);
    let mut serializer = rkyv::ser::Serializer::new(writer, (), ());
    rkyv::api::serialize_using::<_, rkyv::rancor::Panic>(head, &mut serializer)
        .unwrap_or_else(|never| match never {});
    *batch = serializer.into_writer();
}

/// Appends an envelope to a batch.
pub fn push(batch: &mut Vec<u8>, envelope: &Envelope<'_>) {
    match *envelope {
        Envelope::Deliver(parcel) => {
            push_head(
                batch,
                &Head::Deliver {
                    hash_high: (parcel.hash.0 >> 64) as u64,
                    hash_low: parcel.hash.0 as u64,
                    core: parcel.from.core,
                    user: parcel.from.user.token(),
                    id_sender: parcel.origin.sender,
                    id_number: parcel.origin.number,
                    sent_at_ms: parcel.sent_at_ms,
                    expires_at_ms: parcel.expires_at_ms,
                    target_len: parcel.target.len() as u8,
                    sender_len: parcel.sender.len() as u8,
                    payload_len: parcel.payload.len() as u32,
                },
            );
            batch.extend_from_slice(parcel.target.as_bytes());
            batch.extend_from_slice(parcel.sender.as_bytes());
            batch.extend_from_slice(parcel.payload);
        }
        Envelope::Answer {
            user,
            number,
            outcome,
        } => push_head(
            batch,
            &Head::Answer {
                user: user.token(),
                number,
                outcome: outcome.to_bytes(),
            },
        ),
        Envelope::Room { user, held } => push_head(
            batch,
            &Head::Room {
                user: user.token(),
                held,
            },
        ),
        Envelope::Arrival(Arrival {
            segment,
            slot,
            place,
            framed,
            relogins_ahead_us,
            name,
        }) => {
            push_head(
                batch,
                &Head::Arrival {
                    segment,
                    slot,
                    place,
                    framed,
                    relogins_ahead_us,
                    name_len: name.len() as u8,
                },
            );
            batch.extend_from_slice(name.as_bytes());
        }
        Envelope::Received { bytes, cut } => {
            push_head(
                batch,
                &Head::Received {
                    len: bytes.len() as u32,
                    cut,
                },
            );
            batch.extend_from_slice(bytes);
        }
        Envelope::Inquire {
            inquiry,
            connection,
            name,
        } => {
            push_head(
                batch,
                &Head::Inquire {
                    inquiry: inquiry as u8,
                    connection: connection.token(),
                    name_len: name.len() as u8,
                },
            );
            batch.extend_from_slice(name.as_bytes());
        }
        Envelope::Presence {
            connection,
            name,
            away_since_ms,
            notice,
        } => {
            push_head(
                batch,
                &Head::Presence {
                    connection: connection.token(),
                    online: away_since_ms.is_none(),
                    last_seen_ms: away_since_ms.unwrap_or(0),
                    notice: notice as u8,
                    name_len: name.len() as u8,
                },
            );
            batch.extend_from_slice(name.as_bytes());
        }
    }
}
