//! The turns of a dialogue in which images may stand beside text, and the sample that they make.

use std::{borrow::Cow, fmt};

use karat_rules::domain::{Image, Message, Role, Sample};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{
    Deserialize, Deserializer,
    de::{Error as _, MapAccess, SeqAccess, Visitor, value::MapAccessDeserializer},
};

use crate::api::{
    body::optional_objects,
    images::{self, ImageSource, ImageUrl},
};

/// One turn of a dialogue.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Turn {
    /// Who said it.
    role: Role,
    /// What was said or shown: text, or parts of text and images.
    content: Content,
}

#[derive(Debug, Clone)]
enum Content {
    Text(String),
    Parts(Vec<Part>),
}

/// A part of a turn.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
enum Part {
    /// Text.
    Text {
        /// What was said.
        text: String,
    },
    /// An image.
    Image {
        /// Its data or its URL.
        image: ImageSource,
    },
    /// An image as OpenAI's clients write it.
    ImageUrl {
        /// Its data or its URL.
        image_url: ImageUrl,
    },
}

/// A response: text, or an image.
#[derive(Debug, Clone, JsonSchema)]
#[schemars(untagged)]
pub(super) enum Response {
    /// Text.
    Text(String),
    /// An image.
    Image(ImageResponse),
}

/// A response that is an image.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ImageResponse {
    /// Its data or its URL.
    image: ImageSource,
}

impl<'de> Deserialize<'de> for Response {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Written;

        impl<'de> Visitor<'de> for Written {
            type Value = Response;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string, or {\"image\": …}")
            }

            fn visit_str<E>(self, text: &str) -> Result<Response, E> {
                Ok(Response::Text(text.to_owned()))
            }

            fn visit_string<E>(self, text: String) -> Result<Response, E> {
                Ok(Response::Text(text))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Response, A::Error> {
                ImageResponse::deserialize(MapAccessDeserializer::new(map)).map(Response::Image)
            }
        }

        deserializer.deserialize_any(Written)
    }
}

impl Response {
    /// The image, if it is one.
    pub(super) fn image(&mut self) -> Option<&mut ImageSource> {
        match self {
            Self::Text(_) => None,
            Self::Image(ImageResponse { image }) => Some(image),
        }
    }

    /// The text, if it is one.
    pub(super) fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            Self::Image(_) => None,
        }
    }
}

/// Text or parts, as the schema says it.
#[derive(JsonSchema)]
#[schemars(untagged, inline)]
#[expect(dead_code, reason = "only its schema is used: the parser reads text without a copy")]
enum ContentShapes {
    Text(String),
    Parts(Vec<Part>),
}

impl JsonSchema for Content {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        ContentShapes::schema_name()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        ContentShapes::json_schema(generator)
    }
}

impl<'de> Deserialize<'de> for Content {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Written;

        impl<'de> Visitor<'de> for Written {
            type Value = Content;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string or a list of parts")
            }

            fn visit_str<E>(self, text: &str) -> Result<Content, E> {
                Ok(Content::Text(text.to_owned()))
            }

            fn visit_string<E>(self, text: String) -> Result<Content, E> {
                Ok(Content::Text(text))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Content, A::Error> {
                let mut parts = Vec::new();
                while let Some(part) = list.next_element()? {
                    parts.push(part);
                }
                Ok(Content::Parts(parts))
            }
        }

        deserializer.deserialize_any(Written)
    }
}

impl Turn {
    /// A user's turn of text alone.
    pub(super) fn of_user(text: String) -> Self {
        Self { role: Role::User, content: Content::Text(text) }
    }

    /// An assistant's turn: a response of either kind.
    pub(super) fn of_assistant(response: Response) -> Self {
        let content = match response {
            Response::Text(text) => Content::Text(text),
            Response::Image(ImageResponse { image }) => Content::Parts(vec![Part::Image { image }]),
        };
        Self { role: Role::Assistant, content }
    }

    /// The images that stand in it.
    pub(super) fn images(&mut self) -> impl Iterator<Item = &mut ImageSource> {
        let parts = match &mut self.content {
            Content::Text(_) => [].iter_mut(),
            Content::Parts(parts) => parts.iter_mut(),
        };
        parts.filter_map(|part| match part {
            Part::Text { .. } => None,
            Part::Image { image } | Part::ImageUrl { image_url: ImageUrl(image) } => Some(image),
        })
    }

    /// Its text, and its images.
    fn apart(self) -> Result<(Message, Vec<Image>), String> {
        let mut images = Vec::new();
        let content = match self.content {
            Content::Text(text) => text,
            Content::Parts(parts) => {
                let mut text = String::new();
                for part in parts {
                    match part {
                        Part::Text { text: more } => text.push_str(&more),
                        Part::Image { image } | Part::ImageUrl { image_url: ImageUrl(image) } => {
                            images.push(image.into_image()?);
                        }
                    }
                }
                text
            }
        };
        Ok((Message { role: self.role, content }, images))
    }
}

/// The turns as text; an image among them is refused.
///
/// # Errors
/// When one holds an image.
pub(super) fn texts(turns: Vec<Turn>) -> Result<Vec<Message>, String> {
    let texts = turns.into_iter().map(|turn| match turn.apart()? {
        (message, images) if images.is_empty() => Ok(message),
        _ => Err(images::about_images()),
    });
    texts.collect()
}

/// Reads turns of a route whose models read text alone, which may be left out; an image among them is refused.
pub(super) fn optional_texts<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<Message>>, D::Error> {
    optional_objects(deserializer)?.map(texts).transpose().map_err(D::Error::custom)
}

/// Reads a response of such a route.
pub(super) fn optional_text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    match Option::<Response>::deserialize(deserializer)? {
        None => Ok(None),
        Some(Response::Text(text)) => Ok(Some(text)),
        Some(Response::Image(_)) => Err(D::Error::custom(images::about_images())),
    }
}

/// The sample that turns make, the last of which is scored.
///
/// # Errors
/// As [`images::sample`].
pub(super) fn sample(turns: Vec<Turn>) -> Result<Sample, String> {
    images::sample(turns.into_iter().map(Turn::apart).collect::<Result<_, _>>()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    const IMAGE: &str = "data:image/png;base64,AAEC";

    fn parse(json: &str) -> Result<Sample, String> {
        sample(serde_json::from_str(json).map_err(|error| error.to_string())?)
    }

    #[test]
    fn the_assistants_image_is_rated_for_the_text_and_images_before_it() {
        let found = parse(&format!(
            r#"[{{"role":"user","content":[{{"type":"image_url","image_url":{{"url":"{IMAGE}","detail":"low"}}}},
                {{"type":"text","text":"The same "}},{{"type":"text","text":"cat."}}]}},
                {{"role":"assistant","content":[{{"type":"image","image":"{IMAGE}"}}]}}]"#
        ));
        let Ok(Sample::Picture(picture)) = found else { panic!("{found:?}") };
        assert_eq!((picture.prompt(), picture.references().len()), ("The same cat.", 1));
    }

    #[test]
    fn turns_of_text_are_a_conversation_as_ever() {
        let found = parse(
            r#"[{"role":"user","content":"Why?"},
            {"role":"assistant","content":[{"type":"text","text":"So."}]}]"#,
        );
        let Ok(Sample::Conversation(conversation)) = found else { panic!("{found:?}") };
        assert_eq!(conversation.response(), "So.");
    }

    #[test]
    fn text_about_images_is_refused_with_that_word() {
        let part = format!(r#"{{"type":"image","image":"{IMAGE}"}}"#);
        for turns in [
            format!(r#"[{{"role":"user","content":[{part}]}},{{"role":"assistant","content":"A cat."}}]"#),
            format!(r#"[{{"role":"user","content":[{part}]}}]"#),
            format!(r#"[{{"role":"assistant","content":[{part},{part}]}}]"#),
            format!(r#"[{{"role":"assistant","content":[{part},{{"type":"text","text":"See?"}}]}}]"#),
        ] {
            assert!(parse(&turns).unwrap_err().contains("vision-language"), "{turns}");
        }
        let error = parse(r#"[{"role":"assistant","content":[{"type":"video_url","video_url":"x"}]}]"#).unwrap_err();
        assert!(error.contains("video_url"), "{error}");
    }
}
