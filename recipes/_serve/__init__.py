"""A page where one types a sentence and watches the frames appear; `page.py` alone knows Gradio."""
