"""A page in the browser that shows what a network says of pairs and videos. It needs the package Gradio."""
