//! Writes the graph of a checkpoint as an ONNX file that holds its weights, for programs that read such files and for
//! the tests that open one.
//!
//! ```text
//! cargo run -p karat-checkpoint --example onnx FOLDER FILE.onnx
//! ```

use std::{env, error::Error, fs, num::NonZeroUsize, path::Path};

use karat_checkpoint::{Checkpoint, NumbersMut, Origin};
use karat_onnx::TensorProto;
use prost::Message;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [folder, file] = arguments.as_slice() else {
        return Err("write the checkpoint's folder and the file that is to be written".into());
    };
    let checkpoint = Checkpoint::read(&Origin::whole(Path::new(folder)))?;
    let graph = checkpoint.graph();
    let mut weights: Vec<Vec<f32>> =
        graph.tensors.iter().map(|tensor| vec![0.0; tensor.shape.iter().product()]).collect();
    let memory = weights.iter_mut().map(|numbers| NumbersMut::Float32(numbers));
    checkpoint.read_weights(graph, memory, NonZeroUsize::MIN, &|_| ())?;
    let mut model = graph.model.clone();
    let initializers = model.graph.iter_mut().flat_map(|graph| &mut graph.initializer);
    for initializer in initializers {
        let mut tensors = graph.tensors.iter().zip(&weights);
        if let Some((_, numbers)) = tensors.find(|(tensor, _)| tensor.name == initializer.name()) {
            let bytes: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
            *initializer = TensorProto {
                data_location: None,
                external_data: Vec::new(),
                raw_data: Some(bytes.into()),
                ..initializer.clone()
            };
        }
    }
    fs::write(file, model.encode_to_vec())?;
    Ok(())
}
