//! Ids in replies as other servers write them: a word for the kind of reply, and the request's own id behind it.

/// A kind of reply whose id begins with a word.
#[derive(Debug, Clone, Copy)]
pub(super) enum ReplyKind {
    Classify,
    Evaluation,
    Pool,
    Rerank,
    Score,
}

impl ReplyKind {
    const ALL: [Self; 5] = [Self::Classify, Self::Evaluation, Self::Pool, Self::Rerank, Self::Score];

    fn word(self) -> &'static str {
        match self {
            Self::Classify => "classify-",
            Self::Evaluation => "scoreval-",
            Self::Pool => "pool-",
            Self::Rerank => "rerank-",
            Self::Score => "score-",
        }
    }

    /// The id of such a reply to a request.
    pub(super) fn id(self, request: &str) -> String {
        format!("{}{request}", self.word())
    }
}

/// The request that a reply's id names, where it begins with the word of a kind.
pub(super) fn request_of(reply: &str) -> Option<&str> {
    ReplyKind::ALL.iter().find_map(|kind| reply.strip_prefix(kind.word()))
}
