//! The turns of a dialogue in which images may stand beside text, and the sample that they make.

use std::{borrow::Cow, fmt};

use karat_rules::domain::{Conversation, Image, Message, Picture, Role, Sample, dialogue_text};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{
    Deserialize, Deserializer,
    de::{SeqAccess, Visitor},
};

use crate::api::images::{ImageSource, ImageUrl};

/// One turn of a dialogue.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Turn {
    /// Who said it.
    role: Role,
    /// What was said or shown: text, or parts of text and images.
    content: Content,
}

#[derive(Debug)]
enum Content {
    Text(String),
    Parts(Vec<Part>),
}

/// A part of a turn.
#[derive(Debug, Deserialize, JsonSchema)]
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

    /// An assistant's turn of an image alone.
    pub(super) fn of_image(image: ImageSource) -> Self {
        Self { role: Role::Assistant, content: Content::Parts(vec![Part::Image { image }]) }
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
        _ => Err(about_images()),
    });
    texts.collect()
}

fn about_images() -> String {
    "text about images wants a vision-language model, which karat doesn't serve; an image that is rated is the one part of \
     the assistant's turn"
        .to_owned()
}

/// The sample that turns make, the last of which is scored: text, or an image with the text and the images before it.
///
/// # Errors
/// When they end with no response, or with text about images.
pub(super) fn sample(turns: Vec<Turn>) -> Result<Sample, String> {
    let mut apart = turns.into_iter().map(Turn::apart).collect::<Result<Vec<_>, _>>()?;
    if apart.iter().all(|(_, images)| images.is_empty()) {
        let turns = apart.into_iter().map(|(message, _)| message).collect();
        return Conversation::new(turns).map(Sample::Conversation).map_err(|error| error.to_string());
    }
    // One of them holds an image, so there is a last one.
    let Some((last, images)) = apart.pop() else { return Err(about_images()) };
    let [image] = images.as_slice() else { return Err(about_images()) };
    if last.role != Role::Assistant || !last.content.trim().is_empty() {
        return Err(about_images());
    }
    let (said, shown): (Vec<Message>, Vec<Vec<Image>>) = apart.into_iter().unzip();
    let said: Vec<Message> = said.into_iter().filter(|message| !message.content.is_empty()).collect();
    Ok(Sample::Picture(Picture::new(dialogue_text(&said), shown.concat(), image.clone())))
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
