//! Images in requests: as data in the request itself, or by URL where an operator lets them be fetched.

mod fetch;

use std::{borrow::Cow, fmt};

use base64::{
    Engine as _,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use futures_util::future::try_join_all;
use karat_rules::domain::{Conversation, Image, Message, Picture, Role, Sample, dialogue_text};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{
    Deserialize, Deserializer,
    de::{Error as _, Visitor},
};

use super::problem::{Problem, invalid};
pub use fetch::{Fetcher, ImageHost};

/// Base64 with or without its padding.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// An image as a request writes it.
#[derive(Debug, Clone)]
pub(crate) enum ImageSource {
    /// A file's bytes.
    Data(Image),
    /// Where it lies.
    Url(String),
}

impl ImageSource {
    /// Reads what a request writes.
    ///
    /// # Errors
    /// When it is neither data nor a URL.
    pub(crate) fn parse(written: &str) -> Result<Self, String> {
        if let Some(rest) = written.strip_prefix("data:") {
            let (head, data) =
                rest.split_once(',').ok_or("the data URI holds no comma; write data:image/png;base64,…")?;
            if head.starts_with("video/") {
                return Err("this is a video, and karat rates images; send frames of it one by one".to_owned());
            }
            if !head.ends_with(";base64") {
                return Err("the data URI isn't in base64; write data:image/png;base64,…".to_owned());
            }
            let bytes = BASE64.decode(data.trim_ascii()).map_err(|error| format!("the data is not base64: {error}"))?;
            return Ok(Self::Data(Image::new(bytes)));
        }
        if written.starts_with("https://") || written.starts_with("http://") {
            return Ok(Self::Url(written.to_owned()));
        }
        Err("an image is data:image/png;base64,… (also image/jpeg, image/webp and image/gif), or an http(s) URL"
            .to_owned())
    }

    /// The image; a URL has to be fetched first.
    ///
    /// # Errors
    /// When it is a URL still.
    pub(crate) fn into_image(self) -> Result<Image, String> {
        match self {
            Self::Data(image) => Ok(image),
            Self::Url(_) => {
                Err("images are taken as data here, and not by URL; send data:image/png;base64,…".to_owned())
            }
        }
    }
}

/// Fetches those of some images that are URLs, all at once, and puts them in their places.
///
/// # Errors
/// When an image's host is none that may be asked, or doesn't give the image.
pub(crate) async fn fetch(fetcher: &Fetcher, sources: Vec<&mut ImageSource>) -> Result<(), Problem> {
    let fetched = sources.into_iter().filter_map(|source| match source {
        ImageSource::Data(_) => None,
        ImageSource::Url(url) => {
            let url = std::mem::take(url);
            Some(async move {
                *source = ImageSource::Data(Image::new(fetcher.fetch(url).await.map_err(invalid)?));
                Ok::<_, Problem>(())
            })
        }
    });
    try_join_all(fetched).await.map(|_| ())
}

/// The sample that turns make, each with its images, of which the last is scored: text, or an image with the text and the
/// images before it.
///
/// # Errors
/// When they end with no response, or with text about images.
pub(crate) fn sample(mut turns: Vec<(Message, Vec<Image>)>) -> Result<Sample, String> {
    if turns.iter().all(|(_, images)| images.is_empty()) {
        let turns = turns.into_iter().map(|(message, _)| message).collect();
        return Conversation::new(turns).map(Sample::Conversation).map_err(|error| error.to_string());
    }
    // One of them holds an image, so there is a last one.
    let Some((last, images)) = turns.pop() else { return Err(about_images()) };
    let [image] = images.as_slice() else { return Err(about_images()) };
    if last.role != Role::Assistant || !last.content.trim().is_empty() {
        return Err(about_images());
    }
    let (said, shown): (Vec<Message>, Vec<Vec<Image>>) = turns.into_iter().unzip();
    let said: Vec<Message> = said.into_iter().filter(|message| !message.content.is_empty()).collect();
    Ok(Sample::Picture(Picture::new(dialogue_text(&said), shown.concat(), image.clone())))
}

/// What is said of turns that ask for another kind of model.
pub(crate) fn about_images() -> String {
    "text about images wants a vision-language model, which karat doesn't serve; an image that is rated is the one part of \
     the assistant's turn"
        .to_owned()
}

impl<'de> Deserialize<'de> for ImageSource {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Written;

        impl Visitor<'_> for Written {
            type Value = ImageSource;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an image as a data URI or a URL")
            }

            fn visit_str<E: serde::de::Error>(self, written: &str) -> Result<ImageSource, E> {
                ImageSource::parse(written).map_err(E::custom)
            }
        }

        deserializer.deserialize_str(Written)
    }
}

impl JsonSchema for ImageSource {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Image".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "format": "uri" })
    }
}

/// The `image_url` of a part: `{"url": …}` as OpenAI's clients write it, or the URL.
#[derive(Debug, Clone)]
pub(crate) struct ImageUrl(pub(crate) ImageSource);

impl<'de> Deserialize<'de> for ImageUrl {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged, expecting = "an image_url must be {\"url\": …} or a string")]
        enum Written {
            Bare(String),
            Object {
                url: String,
                #[serde(default, rename = "detail")]
                _detail: Option<String>,
            },
        }

        let url = match Written::deserialize(deserializer)? {
            Written::Bare(url) | Written::Object { url, .. } => url,
        };
        ImageSource::parse(&url).map(Self).map_err(D::Error::custom)
    }
}

impl JsonSchema for ImageUrl {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "ImageUrl".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let url = generator.subschema_for::<ImageSource>();
        json_schema!({ "anyOf": [url, {
            "type": "object", "required": ["url"], "properties": { "url": url, "detail": { "type": "string" } }
        }] })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_data_or_a_url_and_everything_else_is_told() {
        for whole in ["data:image/png;base64,AAECAw==", "data:;base64,AAECAw"] {
            let image = ImageSource::parse(whole).unwrap().into_image().unwrap();
            assert_eq!(image.encoded(), [0, 1, 2, 3]);
        }
        assert!(matches!(ImageSource::parse("https://host/x.png"), Ok(ImageSource::Url(_))));
        for (bad, needle) in [
            ("data:video/mp4;base64,AAAA", "video"),
            ("data:image/png,AAAA", "base64"),
            ("data:image/png;base64,*", "not base64"),
            ("data:image/png", "comma"),
            ("file:///etc/passwd", "data:image/png"),
            ("AAAA", "data:image/png"),
        ] {
            let error = ImageSource::parse(bad).unwrap_err();
            assert!(error.contains(needle), "{bad}: {error}");
        }
    }
}
