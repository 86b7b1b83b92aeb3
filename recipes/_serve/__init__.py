"""A page where one types a sentence and watches the frames appear.

`desk.py` and `page.py` alone know Gradio.
"""
