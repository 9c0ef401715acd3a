"""Give a pretrained GLiNER2 a Korean encoder, fine-tune it, measure it honestly and publish it.

The rooms, in reading order; each imports only from those above it:

    common            errors, reading and writing files
    cli               options, arguments, console, how a script starts and ends
    hub               fetching from the Hub, and its errors in plain words
    corpus/           what comes in
        matching      where a mention stands in a text, whatever the spacing and the Unicode form
        schema        what is asked: entity labels, classifications, relations, structures
        rows          a document with its labels, and the form in which it is stored
        tasks         classes, relations and structures of a row
        parsing       the three forms in which users write a row
        words         word splitters: one base class, one registry; Kiwi
        reading       files and data sets into rows
        splits        training and validation rows, folds, and texts that two of them share
        tokens        the tokenizer of an encoder as its files say; continuation pieces
        processor     windows into prompts and batches
        alignment     mentions and records into targets, or the cause why they are none
        windows       documents into windows, with their targets
        report        what a corpus holds and how much of it can be learned
        diagnosis     what is doubtful in a corpus: disagreements, near-duplicates, personal data
        suggestions   words for the user dictionary
        corrections   decisions about labels, and the corrected rows
    corpus/formats/   exports of annotation tools, in and out
        documents     a document as an export has it, and as a row; options of formats
        sources       files of any encoding; JSON records
        repair        offsets that count another form of the text
        tags          BIO, IOB1 and BIOES tags as runs of words
        writing       what writers share; rows and doccano
        label_studio  tasks of Label Studio, in and out
        json_tools    doccano, Prodigy, Argilla, GLiNER v1, rows, predictions
        brat          pairs of .txt and .ann
        columns       CoNLL and KLUE's TSV, in and out
        tables        a column for each label, and KBMC's strings of tags
        spacy_docs    .spacy files, in and out
        conversion    reading, writing, and the account of what was changed
    model/            what is trained
        architecture  what the two architectures of gliner2 answer differently
        spans         the span architecture: training of the count head, scores by width
        boundary      the boundary architecture (GLiNER2.5): open gates, true losses, limits
        lora          adapters
        attention     the fast attention, for reading
        settings      what a model's config.json says about it
        requests      what a caller asks for, checked
        answers       the answers of a document's windows as one, in gliner2's shapes
        prediction    the one way from windows to scored spans
        extractor     save, load, and the API that users call
        ensemble      several models that answer as one
        swap          the surgical swap, and its options
    scoring/          how good it is
        metrics       scores, intervals, comparisons: one entry a metric
        tasks         scores of classes, relations and structures
        learning_curve  what more documents would bring
        candidates    out-of-fold candidates of a whole corpus
        evidence      what speaks for and against a label
        review        which labels are probably wrong
        analysis      why it fails
        gliner        GLiNER v1 models, to compare with
        ner_f1        the metrics for the evaluate library
    training/         how it is trained
        arguments     the options, each with what it affects
        checkpoints   the files of a run; resuming
        run           start, precision, requests to stop
        optimizer     parameter groups, weight averaging, checks of a step
        batches       windows into batches, as many as fit in memory
        speed         what only makes a step faster
        trial         how long a run takes, and its memory
        texts         raw text of any size into packed rows; a vocabulary
        pretraining   masked language modelling of an encoder
        starter       the small pair for demos and tests
    verification/     whether an encoder can go in
        agreement     how far a new encoder agrees with the one it replaces
        candidates    facts from an encoder's files
        checks        the judge
    sharing/          what goes out
        tables        tables for the terminal and Markdown
        page          plots and the HTML page of an evaluation
        card          the model card
        doctor        tables and page of the doctor
        review_page   the page on which a person decides
        publishing    the upload
        demo          the page to try a model, and the service
        spacy_component  a model in a spaCy pipeline
"""

from glinerko.common import GlinerkoError, __version__
from glinerko.corpus.words import KoreanWordSplitter, WordSplitter, load_word_splitter, register_word_splitter
from glinerko.model.extractor import KoreanExtractor, load_extractor
from glinerko.model.swap import swap_encoder

__all__ = [
    "GlinerkoError",
    "KoreanExtractor",
    "KoreanWordSplitter",
    "WordSplitter",
    "__version__",
    "load_extractor",
    "load_word_splitter",
    "register_word_splitter",
    "swap_encoder",
]
